"use strict"
// The pen that arrow keys move over the drawing pad, and that the space bar lowers and lifts.

const NUM_CELLS = 28 // steps along the longer side of the pad
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }

class KeyboardPen {
    /** `mark` shows where the pen is; `announce(text)` is called with what a screen reader should say. */
    constructor(pad, mark, announce) {
        Object.assign(this, { pad, mark, announce, x: pad.canvas.width / 2, y: pad.canvas.height / 2 })
        this.held = new Set() // arrow keys
        this.isDown = false
        pad.canvas.addEventListener("keydown", (event) => this.press(event))
        pad.canvas.addEventListener("keyup", (event) => this.held.delete(event.key))
        const lift = () => this.lift()
        for (const type of ["blur", "pointerdown"]) pad.canvas.addEventListener(type, lift, { capture: true })
        this.show()
    }

    press(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return
        if (event.key in ARROWS) this.move(event.key)
        else if (event.key === " ") event.repeat || this.toggle()
        else return
        event.preventDefault() // no scrolling
        this.mark.classList.add("used")
    }

    /** Two arrow keys that are held together move the pen diagonally. */
    move(key) {
        const step = PAD_SIZE / NUM_CELLS, { width, height } = this.pad.canvas
        for (const [right, down] of [...this.held.add(key)].map((held) => ARROWS[held])) {
            this.x = Math.min(Math.max(this.x + right * step, 0), width)
            this.y = Math.min(Math.max(this.y + down * step, 0), height)
        }
        if (this.isDown) this.pad.extendStroke([this.x, this.y])
        this.show()
    }

    toggle() {
        if (this.isDown) this.pad.endStroke()
        else this.pad.startStroke([this.x, this.y])
        this.isDown = !this.isDown
        this.show()
        const cell = (place) => Math.floor((place / PAD_SIZE) * NUM_CELLS)
        this.announce(`Pen ${this.isDown ? "down" : "up"}, ${cell(this.x)} from the left, ${cell(this.y)} from the top`)
    }

    lift() {
        this.held.clear()
        if (this.isDown) this.pad.endStroke()
        this.isDown = false
        this.mark.classList.remove("used")
        this.show()
    }

    show() {
        const { width, height } = this.pad.canvas
        this.mark.style.left = `${(100 * this.x) / width}%`
        this.mark.style.top = `${(100 * this.y) / height}%`
        this.mark.classList.toggle("down", this.isDown)
    }
}

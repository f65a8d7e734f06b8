"use strict"
// The drawing pad: strokes of a mouse, a finger or a pen, pictures from files, undo. It holds ink as opacity.

const PAD_SIZE = 560 // pixels of the longer side
const PEN_WIDTH = 46
const MAX_PIXELS = 50_000_000

class DrawingPad {
    /** Has the proportions of an image of `height` x `width` pixels, and calls `changed()` after each change. */
    constructor(canvas, height, width, changed) {
        Object.assign(this, { canvas, changed })
        const scale = PAD_SIZE / Math.max(height, width)
        canvas.width = Math.round(scale * width)
        canvas.height = Math.round(scale * height)
        this.context = canvas.getContext("2d", { willReadFrequently: true })
        this.items = [] // strokes, [[x, y], ...], and new pages, which may show a picture
        this.stroke = null // the one being drawn
        this.listen()
    }

    listen() {
        const on = (type, handler) => this.canvas.addEventListener(type, handler)
        on("pointerdown", (event) => {
            if (event.button !== 0 || this.pointer !== undefined) return
            this.canvas.setPointerCapture(event.pointerId)
            this.pointer = event.pointerId
            this.startStroke(this.place(event))
        })
        on("pointermove", (event) => {
            if (event.pointerId !== this.pointer) return
            const events = event.getCoalescedEvents?.() ?? []
            this.extendStroke(...(events.length ? events : [event]).map((each) => this.place(each)))
        })
        for (const type of ["pointerup", "pointercancel"]) {
            on(type, (event) => {
                if (event.pointerId !== this.pointer) return
                this.pointer = undefined
                this.endStroke()
            })
        }
    }

    place(event) {
        const box = this.canvas.getBoundingClientRect()
        const scale = this.canvas.width / box.width
        return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale]
    }

    startStroke(point) {
        this.stroke = [point]
        this.add(this.stroke)
    }

    extendStroke(...points) {
        this.stroke?.push(...points)
        this.draw()
    }

    endStroke() {
        this.stroke = null
    }

    add(item) {
        this.items.push(item)
        this.draw()
    }

    undo() {
        this.endStroke()
        this.items.pop()
        this.draw()
    }

    clear() {
        this.endStroke()
        if (!this.isEmpty) this.add({ picture: null })
    }

    get isEmpty() {
        const { picture, strokes } = this.page
        return !picture && !strokes.length
    }

    /** The strokes since the last new page, and the picture that the page shows, if any. */
    get page() {
        const start = this.items.findLastIndex((item) => !Array.isArray(item))
        return { picture: this.items[start]?.picture, strokes: this.items.slice(start + 1) }
    }

    /**
     * Shows the ink of a picture file instead of the drawing. `isUnchanged` tells whether a picture is left as it is.
     * Throws an Error that says what to do.
     */
    async load(file, isUnchanged) {
        const bitmap = await createImageBitmap(file).catch(() => {
            throw new Error(`${file.name} cannot be read as a picture; choose a PNG or JPEG file.`)
        })
        const { width, height } = bitmap
        if (width * height > MAX_PIXELS) {
            throw new Error(
                `${file.name} has ${width} x ${height} pixels; shrink it to at most ${MAX_PIXELS.toLocaleString("en")}.`,
            )
        }
        const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })
        const onPaper = (colour) => {
            context.clearRect(0, 0, width, height)
            context.fillStyle = colour
            context.fillRect(0, 0, width, height)
            context.drawImage(bitmap, 0, 0)
            return context.getImageData(0, 0, width, height)
        }
        const drawn = onPaper("transparent")
        const choices = isOpaque(drawn) ? [drawn] : ["white", "black"].map(onPaper)
        const pictures = choices.map((pixels) => pictureOf(pixels, greyAt))
        const [picture] = pictures.sort((one, other) => contrast(other) - contrast(one))
        this.add({ picture: inkOfFile(picture, isUnchanged(picture)) })
    }

    /** Returns what the network is to read: a picture as it was loaded, or the ink of the pad. */
    read() {
        const { picture, strokes } = this.page
        if (picture && !strokes.length) return picture
        return pictureOf(this.context.getImageData(0, 0, this.canvas.width, this.canvas.height), opacityAt)
    }

    draw() {
        const { context, canvas } = this, { picture, strokes } = this.page
        context.clearRect(0, 0, canvas.width, canvas.height)
        if (picture) this.drawPicture(picture)
        Object.assign(context, { lineWidth: PEN_WIDTH, lineCap: "round", lineJoin: "round" })
        for (const points of strokes) {
            context.beginPath()
            tracePath(context, points)
            context.stroke()
        }
        this.changed()
    }

    drawPicture(picture) {
        const { context, canvas } = this
        const scale = Math.min(canvas.width / picture.width, canvas.height / picture.height)
        const width = scale * picture.width, height = scale * picture.height
        const page = new OffscreenCanvas(picture.width, picture.height)
        page.getContext("2d").putImageData(inkImage(picture), 0, 0)
        context.imageSmoothingEnabled = scale < 1
        context.drawImage(page, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height)
    }
}

/** Draws a smooth curve through the midpoints between neighbouring points. */
function tracePath(context, points) {
    let [x, y] = points[0]
    context.moveTo(x, y)
    context.lineTo(x + 0.01, y) // a dot, if there are no other points
    for (const [nextX, nextY] of points.slice(1)) {
        context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2)
        x = nextX
        y = nextY
    }
    context.lineTo(x, y)
}

/** Returns pixels whose opacity is the grey level. */
function inkImage({ width, height, levels }) {
    const image = new ImageData(width, height)
    levels.forEach((level, i) => (image.data[4 * i + 3] = level))
    return image
}

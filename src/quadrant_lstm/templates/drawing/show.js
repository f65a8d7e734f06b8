"use strict"
// Shows an image, its quadrants, the frames that the orderings make of them, and the probabilities after each step.

const STEPS = Array.from({ length: NUM_STEPS }, (_, number) => `Step ${number + 1}`)
const ALL_ORDERINGS = permutations([1, 2, 3, 4])

const byId = (id) => document.getElementById(id)
const highest = (probabilities) => probabilities.indexOf(Math.max(...probabilities))

function permutations(items) {
    if (items.length < 2) return [items]
    const others = (item) => items.filter((other) => other !== item)
    return items.flatMap((item) => permutations(others(item)).map((rest) => [item, ...rest]))
}

function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties)
    made.append(...children)
    return made
}

/** Returns an element for a quadrant and its number. */
function quadrantElement({ width, height }) {
    const canvas = element("canvas", { width: width / 2, height: height / 2 })
    return element("div", { className: "quadrant" }, canvas, element("span"))
}

/** Builds the table of `network`; `choose(number, ordering)` is called when another ordering is chosen. */
function buildTable(network, choose) {
    const numOutputs = network.recurrent.at(-1).bidirectional ? 1 : NUM_STEPS
    const table = {
        selects: network.orderings.map((_, number) => orderingElement((ordering) => choose(number, ordering), number)),
        frames: network.orderings.map(() => STEPS.map(() => quadrantElement(network))), // by ordering and step
        predictions: Array.from({ length: numOutputs }, () => element("b")),
        bars: [], // by class and step
    }
    for (let label = 0; label < network.classes; label++) {
        table.bars.push(table.predictions.map(() => element("div", { className: "bar" })))
    }
    const heading = (content, scope) => element("th", { scope }, content)
    const row = (title, items) => {
        const cells = items.map((item) => element("td", { colSpan: NUM_STEPS / items.length }, item))
        return element("tr", {}, heading(title, "row"), ...cells)
    }
    const columns = ["Ordering", ...STEPS].map((title) => heading(title, "col"))
    byId("steps").append(
        element("colgroup", {}, element("col", { className: "names" }), element("col", { span: NUM_STEPS })),
        element("thead", {}, element("tr", {}, ...columns)),
        element("tbody", { className: "frames" }, ...table.frames.map((items, i) => row(table.selects[i], items))),
        element("tbody", { className: "predicted" }, row("Prediction", table.predictions)),
        element("tbody", { className: "classes" }, ...table.bars.map((items, label) => row(String(label), items))),
    )
    return table
}

function orderingElement(choose, number) {
    const options = ALL_ORDERINGS.map((ordering) => element("option", {}, ordering.join("")))
    const select = element("select", { ariaLabel: `Ordering ${number + 1}` }, ...options)
    select.onchange = () => choose(ALL_ORDERINGS[select.selectedIndex])
    return select
}

/** Shows the image in four elements, and its quadrants as the orderings arrange them. */
function showImage(image, elements, table, orderings) {
    const quadrants = splitQuadrants({ ...image, channels: 1, values: Float32Array.from(image.levels) })
    const show = (quadrant, number) => {
        const [canvas, label] = quadrant.children
        const { width, height } = canvas
        canvas.getContext("2d").putImageData(inkImage({ width, height, levels: quadrants[number - 1] }), 0, 0)
        label.textContent = number
    }
    elements.forEach((quadrant, i) => show(quadrant, i + 1))
    table.frames.forEach((row, i) => row.forEach((quadrant, step) => show(quadrant, orderings[i][step])))
}

/** `probabilities` are those of the classes after each step, or null for a blank drawing. */
function showPrediction(probabilities, table) {
    const [answer, confidence] = byId("answer").children
    const last = probabilities?.at(-1)
    answer.textContent = last ? highest(last) : ""
    confidence.textContent = last ? `with ${inPercent(Math.max(...last))} confidence` : "Blank: nothing to read yet"
    table.predictions.forEach((cell, step) => (cell.textContent = probabilities ? highest(probabilities[step]) : ""))
    table.bars.forEach((row, label) => row.forEach((bar, step) => {
        const share = probabilities?.[step][label] ?? 0
        bar.textContent = `${Math.round(100 * share)} %`
        bar.style.setProperty("--share", share)
        bar.classList.toggle("zero", share < 0.005)
        bar.classList.toggle("half", share > 0.5)
        bar.classList.toggle("first", probabilities !== null && highest(probabilities[step]) === label)
    }))
}

function inPercent(share) {
    return share > 0.9995 ? "over 99.9 %" : `${(100 * share).toFixed(1)} %`
}

/** Returns the prediction for a screen reader. */
function inWords(probabilities) {
    if (!probabilities) return "The drawing is blank."
    const last = probabilities.at(-1)
    const steps = probabilities.length > 1 ? ` After each step: ${probabilities.map(highest).join(", ")}.` : ""
    return `Read as ${highest(last)} with ${inPercent(Math.max(...last))} confidence.${steps}`
}

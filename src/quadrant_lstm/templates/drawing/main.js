"use strict"
// Connects the drawing pad, the network, and what the page shows.

const SILENCE = 600 // ms without a change before a screen reader is told the prediction
const NUM_TIMES = 15

const { network, subject } = decodeValues(byId("values").textContent, byId("values").dataset.weights)
let orderings = network.orderings
let times = [] // of the last predictions, ms
let redraw = 0, speech = 0 // a requested animation frame and a timer

const pad = new DrawingPad(byId("pad"), network.height, network.width, requestReading)
const pen = new KeyboardPen(pad, byId("pen"), announce)
const quadrants = STEPS.map(() => quadrantElement(network))
const table = buildTable(network, (number, ordering) => setOrderings(orderings.with(number, ordering)))
byId("quadrants").append(...quadrants)
setOrderings(orderings)

byId("undo").onclick = undo
byId("clear").onclick = () => pad.clear()
byId("reset").onclick = () => setOrderings(network.orderings)
byId("file").onchange = async (event) => {
    await load(event.target.files)
    event.target.value = "" // so that the same file can be loaded again
}
document.onpaste = (event) => load(event.clipboardData.files)
document.ondragover = (event) => event.preventDefault()
document.ondrop = (event) => {
    event.preventDefault()
    load(event.dataTransfer.files)
}
document.onkeydown = (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z") undo()
}

function undo() {
    pen.lift()
    pad.undo()
}

async function load([file]) {
    byId("message").textContent = ""
    try {
        if (file) await pad.load(file, isUnchanged)
    } catch (error) {
        byId("message").textContent = error.message
    }
}

/** Tells whether a picture is an image of a data set whose images are not centred as MNIST's digits are. */
function isUnchanged({ width, height }) {
    return subject !== "digit" && width === network.width && height === network.height
}

function setOrderings(chosen) {
    orderings = chosen
    orderings.forEach((ordering, i) => (table.selects[i].value = ordering.join("")))
    const trained = [network.orderings, ...(network.trained ?? []).map((ordering) => [ordering])].map(String)
    byId("other-orderings").hidden = trained.includes(String(orderings))
    requestReading()
}

/** Reads the pad once before the browser draws the next time. */
function requestReading() {
    cancelAnimationFrame(redraw)
    redraw = requestAnimationFrame(read)
}

function read() {
    const start = performance.now()
    const picture = pad.read(), image = prepare(picture, network.width, network.height)
    const probabilities = isBlank(picture, image) ? null : logitsPerStep(network, image.levels, orderings).map(softmax)
    if (probabilities) showTime(performance.now() - start)
    showImage(image, quadrants, table, orderings)
    const note = (probabilities && pad.page.picture?.note) || ""
    showPrediction(probabilities, table)
    byId("doubt").textContent = note
    byId("invitation").hidden = !pad.isEmpty
    byId("undo").disabled = !pad.items.length
    byId("clear").disabled = pad.isEmpty
    clearTimeout(speech)
    speech = setTimeout(() => announce(`${inWords(probabilities)} ${note}`.trim()), SILENCE)
}

/** Shows the median of the last predictions. */
function showTime(milliseconds) {
    times = [...times, milliseconds].slice(-NUM_TIMES)
    const median = times.toSorted((a, b) => a - b)[times.length >> 1]
    byId("time").textContent = `A prediction takes ${median.toFixed(0)} ms here.`
}

function announce(text) {
    byId("status").textContent = text
}

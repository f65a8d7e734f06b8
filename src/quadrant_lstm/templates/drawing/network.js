"use strict"
// Computes the logits of a network, with the layers of layers.js, from the pixels of an image.

/** Returns the values of the page. Weights are base64 of little-endian float32 or float16. */
function decodeValues(json, type) {
    const isWeight = (key) => key === "weight" || key === "bias"
    return JSON.parse(json, (key, value) => (isWeight(key) ? decodeWeights(value, type) : value))
}

function decodeWeights(base64, type) {
    const { buffer } = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))
    return type === "float32" ? new Float32Array(buffer) : Float32Array.from(new Uint16Array(buffer), decodeHalf)
}

function decodeHalf(bits) { // older browsers have no Float16Array
    const exponent = (bits >> 10) & 31, fraction = bits & 1023
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24
    return bits >> 15 ? -size : size
}

function encode(network, map) {
    const layers = { conv, relu, pool }
    return network.encoder.reduce((map, layer) => layers[layer.type](map, layer), map)
}

/** Returns the four quadrants of a map, in reading order. */
function splitQuadrants({ height, width, channels, values }) {
    const rows = height / 2, size = (width / 2) * channels
    return [[0, 0], [0, 1], [1, 0], [1, 1]].map(([down, right]) => {
        const quadrant = new Float32Array(rows * size)
        for (let row = 0; row < rows; row++) {
            const from = ((down * rows + row) * 2 + right) * size
            quadrant.set(values.subarray(from, from + size), row * size)
        }
        return quadrant
    })
}

/** Returns one array per step: the quadrants that the orderings show at this step, one after another. */
function stackQuadrants(quadrants, orderings) {
    const steps = Array.from({ length: NUM_STEPS }, (_, step) => step)
    return steps.map((step) => concatenate(orderings.map((ordering) => quadrants[ordering[step] - 1])))
}

const concatenate = (arrays) => Float32Array.from(arrays.flatMap((array) => [...array]))

/** Returns what the recurrent layers read, one row per step. A network encodes each frame, or the image at once. */
function features(network, image, orderings) {
    if (network.encodes === "image") {
        return concatenate(stackQuadrants(splitQuadrants(encode(network, image)), orderings))
    }
    const size = { height: orderings.length * image.height / 2, width: image.width / 2, channels: image.channels }
    const frames = stackQuadrants(splitQuadrants(image), orderings)
    return concatenate(frames.map((values) => encode(network, { ...size, values }).values))
}

/** Returns the logits after each step, or after the last one only if the recurrent layer also reads backwards. */
function logitsPerStep(network, pixels, orderings) {
    const { height, width } = network
    const image = { height, width, channels: 1, values: Float32Array.from(pixels, (level) => level / 255) }
    let outputs = network.recurrent.reduce(recur, features(network, image, orderings))
    const { units, bidirectional } = network.recurrent.at(-1)
    if (bidirectional) outputs = concatenate([outputs.subarray(-2 * units, -units), outputs.subarray(units, 2 * units)])
    const logits = network.classifier.reduce(multiply, outputs)
    const size = network.classes
    return Array.from({ length: logits.length / size }, (_, step) => logits.slice(step * size, (step + 1) * size))
}

function softmax(logits) {
    const powers = Array.from(logits, (logit) => Math.exp(logit - Math.max(...logits)))
    const sum = powers.reduce((sum, power) => sum + power, 0)
    return powers.map((power) => power / sum)
}

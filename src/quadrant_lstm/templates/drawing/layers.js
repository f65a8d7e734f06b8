"use strict"
// Computes the layers of networks.
//
// Maps are { height, width, channels, values }, channels last. Matrices are arrays of rows; a weight has one row per
// output, so `inputs` has weight.length / bias.length columns.

const NUM_STEPS = 4

/** Returns inputs x weight^T + bias. Blocks of 4 x 2 keep the sums in registers, four times as fast as one by one. */
function multiply(inputs, { weight, bias }) {
    const columns = bias.length, size = weight.length / columns, rows = inputs.length / size
    const outputs = new Float32Array(rows * columns)
    const fullRows = rows - rows % 4, fullColumns = columns - columns % 2
    for (let row = 0; row < fullRows; row += 4) {
        const a = row * size, b = a + size, c = b + size, d = c + size
        for (let column = 0; column < fullColumns; column += 2) {
            const v = column * size, w = v + size
            let av = bias[column], bv = av, cv = av, dv = av
            let aw = bias[column + 1], bw = aw, cw = aw, dw = aw
            for (let i = 0; i < size; i++) {
                const x = weight[v + i], y = weight[w + i]
                const p = inputs[a + i], q = inputs[b + i], r = inputs[c + i], s = inputs[d + i]
                av += p * x; bv += q * x; cv += r * x; dv += s * x
                aw += p * y; bw += q * y; cw += r * y; dw += s * y
            }
            let place = row * columns + column
            for (const [left, right] of [[av, aw], [bv, bw], [cv, cw], [dv, dw]]) {
                outputs[place] = left
                outputs[place + 1] = right
                place += columns
            }
        }
    }
    for (let row = 0; row < rows; row++) {
        for (let column = row < fullRows ? fullColumns : 0; column < columns; column++) {
            let sum = bias[column]
            for (let i = 0; i < size; i++) sum += inputs[row * size + i] * weight[column * size + i]
            outputs[row * columns + column] = sum
        }
    }
    return outputs
}

/** Multiplies the patches of the map, one row each, with the filters. */
function conv(map, layer) {
    const { kernel, padding } = layer, channels = layer.bias.length
    const height = map.height + 2 * padding - kernel + 1, width = map.width + 2 * padding - kernel + 1
    const patches = new Float32Array(height * width * kernel * kernel * map.channels)
    let place = 0
    for (let top = -padding; top < height - padding; top++) {
        for (let left = -padding; left < width - padding; left++) {
            const first = Math.max(left, 0), last = Math.min(left + kernel, map.width)
            for (let row = top; row < top + kernel; row++, place += kernel * map.channels) {
                if (row < 0 || row >= map.height) continue // padding stays zero
                const from = (row * map.width + first) * map.channels, size = (last - first) * map.channels
                const to = place + (first - left) * map.channels
                for (let i = 0; i < size; i++) patches[to + i] = map.values[from + i]
            }
        }
    }
    return { height, width, channels, values: multiply(patches, layer) }
}

function relu(map) {
    return { ...map, values: map.values.map((value) => (value > 0 ? value : 0)) }
}

/** Returns the [start, end] of each window along an axis. With `quadrants`, no window reaches into the other half. */
function windows(length, { size, ceil, quadrants }) {
    if (quadrants) {
        const half = windows(length / 2, { size, ceil })
        return [...half, ...half.map((window) => window.map((place) => place + length / 2))]
    }
    const count = ceil ? Math.ceil(length / size) : Math.floor(length / size)
    return Array.from({ length: count }, (_, i) => [i * size, Math.min((i + 1) * size, length)])
}

function pool(map, layer) {
    const rows = windows(map.height, layer), columns = windows(map.width, layer)
    const values = new Float32Array(rows.length * columns.length * map.channels).fill(-Infinity)
    let place = 0
    for (const [top, bottom] of rows) {
        for (const [left, right] of columns) {
            for (let row = top; row < bottom; row++) {
                for (let column = left; column < right; column++) {
                    const from = (row * map.width + column) * map.channels
                    for (let i = 0; i < map.channels; i++) {
                        values[place + i] = Math.max(values[place + i], map.values[from + i])
                    }
                }
            }
            place += map.channels
        }
    }
    return { height: rows.length, width: columns.length, channels: map.channels, values }
}

const sigmoid = (value) => 1 / (1 + Math.exp(-value))

/** Changes `cell` and returns the new state. The gates are i, f, g and o; the arguments are two parts of their sums. */
function lstmStep(fromInput, fromState, state, cell) {
    const units = cell.length
    const gate = (number, unit) => fromInput[number * units + unit] + fromState[number * units + unit]
    return state.map((_, unit) => {
        cell[unit] = sigmoid(gate(1, unit)) * cell[unit] + sigmoid(gate(0, unit)) * Math.tanh(gate(2, unit))
        return sigmoid(gate(3, unit)) * Math.tanh(cell[unit])
    })
}

/** Returns the new state. The gates are r, z and n. */
function gruStep(fromInput, fromState, state) {
    const units = state.length
    const gate = (number, unit) => sigmoid(fromInput[number * units + unit] + fromState[number * units + unit])
    return state.map((value, unit) => {
        const candidate = Math.tanh(fromInput[2 * units + unit] + gate(0, unit) * fromState[2 * units + unit])
        return gate(1, unit) * value + (1 - gate(1, unit)) * candidate
    })
}

/** Returns the outputs of all steps, one row each: those of the forward direction, then of the backward one. */
function recur(inputs, layer) {
    const { units, directions } = layer, step = layer.type === "lstm" ? lstmStep : gruStep
    const outputs = new Float32Array(NUM_STEPS * units * directions.length)
    directions.forEach((direction, backward) => {
        const gates = multiply(inputs, direction.input), size = gates.length / NUM_STEPS
        const cell = new Float32Array(units)
        let state = new Float32Array(units)
        for (let i = 0; i < NUM_STEPS; i++) {
            const number = backward ? NUM_STEPS - 1 - i : i
            const fromInput = gates.subarray(number * size, (number + 1) * size)
            state = step(fromInput, multiply(state, direction.state), state, cell)
            outputs.set(state, (number * directions.length + backward) * units)
        }
    })
    return outputs
}

"use strict"
// Prepares pictures like MNIST's digits, as data/image_files.py does. Pictures are { width, height, levels }, with grey
// levels from 0 (background) to 255 (ink).

const INK_THRESHOLD = 50 // darker pixels are background
const MIN_CONTRAST = 10 // of 255; a picture with less is blank
const DIGIT_SHARE = 20 / 28 // of the height and width

/** Returns the grey levels of the opaque RGBA pixels of a file; dark ink on a light border is inverted. */
function pictureOfFile({ width, height, data }) {
    const levels = new Uint8Array(width * height)
    for (let i = 0; i < levels.length; i++) {
        levels[i] = (data[4 * i] * 19595 + data[4 * i + 1] * 38470 + data[4 * i + 2] * 7471 + 32768) >> 16
    }
    const border = [...levels.subarray(0, width), ...levels.subarray(-width)]
    for (let row = 0; row < height; row++) border.push(levels[row * width], levels[(row + 1) * width - 1])
    const mean = border.reduce((sum, level) => sum + level, 0) / border.length
    return { width, height, levels: mean > 127 ? levels.map((level) => 255 - level) : levels }
}

/** Returns the variance of the grey levels. */
function contrast({ levels }) {
    const mean = levels.reduce((sum, level) => sum + level, 0) / levels.length
    return levels.reduce((sum, level) => sum + (level - mean) ** 2, 0) / levels.length
}

/** Returns the picture of the opacity of RGBA pixels, which is how the drawing pad holds ink. */
function pictureOfInk({ width, height, data }) {
    const levels = new Uint8Array(width * height)
    for (let i = 0; i < levels.length; i++) levels[i] = data[4 * i + 3]
    return { width, height, levels }
}

/** Returns a picture of the size that the network reads. One that has this size already is used as it is. */
function prepare(picture, width, height) {
    if (picture.width === width && picture.height === height) return picture
    const box = inkBox(picture)
    if (!box) return resize(picture, width, height)
    const digit = contain(crop(picture, box), roundToEven(DIGIT_SHARE * width), roundToEven(DIGIT_SHARE * height))
    const [x, y] = centreOfMass(digit)
    return placeOnPage(digit, roundToEven(width / 2 - x), roundToEven(height / 2 - y), width, height)
}

/** Tells whether nothing is drawn on a picture, or so little that its prepared version shows nothing. */
function isBlank(picture, prepared) {
    const highest = picture.levels.reduce((most, level) => Math.max(most, level), 0)
    const lowest = picture.levels.reduce((least, level) => Math.min(least, level), 255)
    return !inkBox(picture) || highest - lowest < MIN_CONTRAST || !prepared.levels.some((level) => level > 0)
}

/** Returns the smallest { left, top, right, bottom } around all ink, or null. */
function inkBox({ width, height, levels }) {
    let left = width, top = height, right = 0, bottom = 0
    for (let row = 0, i = 0; row < height; row++) {
        for (let column = 0; column < width; column++, i++) {
            if (levels[i] <= INK_THRESHOLD) continue
            left = Math.min(left, column)
            right = Math.max(right, column + 1)
            top = Math.min(top, row)
            bottom = row + 1
        }
    }
    return bottom ? { left, top, right, bottom } : null
}

function crop(picture, { left, top, right, bottom }) {
    return placeOnPage(picture, -left, -top, right - left, bottom - top)
}

/** Returns a page of the given size with the picture at (left, top). */
function placeOnPage(picture, left, top, width, height) {
    const levels = new Uint8Array(width * height)
    for (let row = Math.max(top, 0); row < Math.min(top + picture.height, height); row++) {
        const first = Math.max(left, 0), last = Math.min(left + picture.width, width)
        const from = (row - top) * picture.width - left
        if (first < last) levels.set(picture.levels.subarray(from + first, from + last), row * width + first)
    }
    return { width, height, levels }
}

/** Resizes to the largest size within the given one that keeps the proportions. */
function contain(picture, width, height) {
    const proportion = picture.width / picture.height
    if (proportion > width / height) height = roundToEven((picture.height / picture.width) * width)
    else if (proportion < width / height) width = roundToEven(proportion * height)
    return resize(picture, Math.max(width, 1), Math.max(height, 1))
}

function centreOfMass({ width, levels }) {
    let sum = 0, x = 0, y = 0
    levels.forEach((level, i) => {
        sum += level
        x += level * (i % width)
        y += level * Math.floor(i / width)
    })
    return [x / sum, y / sum]
}

/** Resizes as Pillow's LANCZOS does: rows, then columns, with weights and sums that are whole multiples of 2 ** -22. */
function resize({ width, height, levels }, newWidth, newHeight) {
    const columns = transpose(resizeRows(levels, width, height, newWidth), newWidth, height)
    const resized = resizeRows(columns, height, newWidth, newHeight)
    return { width: newWidth, height: newHeight, levels: transpose(resized, newHeight, newWidth) }
}

function transpose(levels, width, height) {
    const result = new Uint8Array(levels.length)
    for (let row = 0, i = 0; row < height; row++) {
        for (let column = 0; column < width; column++, i++) result[column * height + row] = levels[i]
    }
    return result
}

function resizeRows(levels, width, height, newWidth) {
    const result = new Uint8ClampedArray(newWidth * height)
    const scale = width / newWidth, stretch = Math.max(scale, 1), reach = 3 * stretch
    for (let column = 0; column < newWidth; column++) {
        const centre = (column + 0.5) * scale
        const first = Math.max(Math.floor(centre - reach + 0.5), 0)
        const size = Math.min(Math.floor(centre + reach + 0.5), width) - first
        const shares = Array.from({ length: size }, (_, i) => lanczos((first + i - centre + 0.5) / stretch))
        const total = shares.reduce((sum, share) => sum + share, 0)
        const weights = Int32Array.from(shares, (share) => Math.round((share / total) * 2 ** 22))
        for (let row = 0; row < height; row++) {
            let sum = 0
            for (let i = 0; i < size; i++) sum += weights[i] * levels[row * width + first + i]
            result[row * newWidth + column] = Math.floor(sum / 2 ** 22 + 0.5)
        }
    }
    return new Uint8Array(result.buffer)
}

function lanczos(x) {
    const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x))
    return Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0
}

/** Rounds as Python does: a half to the even neighbour. */
function roundToEven(value) {
    const floor = Math.floor(value), rest = value - floor
    return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1
}

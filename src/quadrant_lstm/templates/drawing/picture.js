"use strict"
// Prepares pictures like MNIST's digits, as data/image_reader.py does, which explains the steps. Pictures are
// { width, height, levels }, with grey levels from 0 to 255.

const WORKING_SIZE = 640 // pixels of the longer side after averaging, at most
const MIN_STRENGTH = 40 // fainter ink is not told from the paper
const MIN_SEPARATION = 0.75 // of ink and paper
const CELLS = 64 // along the longer side; ink in neighbouring cells belongs together
const INK_THRESHOLD = 50 // darker pixels of prepared ink are not cropped
const FAINT = 25 // pixels beside a stroke are not stronger
const MIN_CONTRAST = 10 // a picture with less is blank
const DIGIT_SHARE = 20 / 28 // of the height and width

/** Returns the picture of RGBA pixels: `levelAt(data, i)` is the level of the one that begins at i. */
function pictureOf({ width, height, data }, levelAt) {
    const levels = new Uint8Array(width * height)
    for (let i = 0; i < levels.length; i++) levels[i] = levelAt(data, 4 * i)
    return { width, height, levels }
}

const greyAt = (data, i) => (data[i] * 19595 + data[i + 1] * 38470 + data[i + 2] * 7471 + 32768) >> 16
const opacityAt = (data, i) => data[i + 3] // which is how the drawing pad holds ink

function isOpaque({ data }) {
    for (let i = 3; i < data.length; i += 4) if (data[i] < 255) return false
    return true
}

/** Returns the variance of the grey levels. */
function contrast({ levels }) {
    const mean = levels.reduce((sum, level) => sum + level, 0) / levels.length
    return levels.reduce((sum, level) => sum + (level - mean) ** 2, 0) / levels.length
}

/** Returns the ink of a file's picture, bright, and a note if it is doubtful; or the picture, if it is to be left as it is. */
function inkOfFile(picture, unchanged) {
    if (unchanged) return { ...picture, unchanged }
    const small = shrink(picture)
    return separateInk(isLight(small) ? { ...small, levels: small.levels.map((level) => 255 - level) } : small)
}

/** Averages blocks of pixels. Pixels at the end that fill no block are left out. */
function shrink({ width, height, levels }) {
    const block = Math.ceil(Math.max(width, height) / WORKING_SIZE)
    const across = Math.min(block, width), down = Math.min(block, height), count = across * down
    const columns = Math.floor(width / across), rows = Math.floor(height / down)
    const result = new Uint8Array(columns * rows)
    for (let row = 0, place = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++, place++) {
            let sum = count >> 1
            for (let y = row * down; y < (row + 1) * down; y++) {
                const start = y * width + column * across
                for (let i = start; i < start + across; i++) sum += levels[i]
            }
            result[place] = Math.floor(sum / count)
        }
    }
    return { width: columns, height: rows, levels: result }
}

/** Tells dark ink on light paper from light ink on dark paper. */
function isLight({ width, height, levels }) {
    const means = localMeans(levels, width, height, 2 * Math.floor(Math.max(width, height) / 10) + 1)
    let squares = 0, cubes = 0
    levels.forEach((level, i) => {
        const difference = level - means[i]
        squares += difference ** 2
        cubes += difference ** 3
    })
    if (levels.length * cubes * cubes > squares * squares * squares) return cubes < 0
    const border = [...levels.subarray(0, width), ...levels.subarray(-width)]
    for (let row = 0; row < height; row++) border.push(levels[row * width], levels[(row + 1) * width - 1])
    return 2 * border.reduce((sum, level) => sum + level, 0) > (lowest(levels) + highestOf(levels)) * border.length
}

function localMeans(levels, width, height, window) {
    const rows = transpose(sumsInRows(levels, width, window), width, height)
    const sums = transpose(sumsInRows(rows, height, window), height, width)
    const counts = (length) => sumsInRows(new Uint8Array(length).fill(1), length, window)
    const across = counts(width), down = counts(height)
    return sums.map((sum, i) => Math.floor(sum / (across[i % width] * down[Math.floor(i / width)])))
}

/** Returns the sums over a window around each value of rows of the given width. */
function sumsInRows(values, width, window) {
    const radius = window >> 1, result = new Uint32Array(values.length)
    for (let start = 0; start < values.length; start += width) {
        let sum = 0
        for (let i = -radius; i < width; i++) {
            if (i + radius < width) sum += values[start + i + radius]
            if (i - radius > 0) sum -= values[start + i - radius - 1]
            if (i >= 0) result[start + i] = sum
        }
    }
    return result
}

/** Returns the ink of a picture in which it is bright, and a note if it is doubtful. */
function separateInk(picture) {
    const { width, height, levels } = picture, side = Math.max(width, height)
    const window = Math.floor((2 * side) / 5)
    const first = abovePaper(picture, window)
    const firstStrong = strongerThan(first, strengths(first).threshold)
    const strokes = strokeWidth(firstStrong, width)
    const ink = abovePaper(picture, Math.min(Math.max(3 * strokes, Math.floor(side / 16)), window))
    const { noise, threshold, strongest } = strengths(ink)
    const result = new Uint8Array(levels.length)
    if (strongest < Math.max(MIN_STRENGTH, 2 * noise)) return { width, height, levels: result, note: "" }
    const strong = nearLargest(strongerThan(ink, threshold), width, height)
    const near = extremesAround(strong, width, height, 2 * (1 + (strokeWidth(strong, width) >> 1)) + 1, true)
    ink.forEach((level, i) => {
        const stretched = Math.floor((Math.max(level - noise, 0) * 255) / (strongest - noise))
        result[i] = near[i] ? Math.min(stretched, 255) : 0
    })
    return { width, height, levels: result, note: noteOn(strong, width, height) }
}

function strongerThan(ink, threshold) {
    return ink.map((level) => (level > threshold ? 1 : 0))
}

/** Returns by how much each pixel is brighter than the paper around it, the morphological opening. */
function abovePaper({ width, height, levels }, window) {
    let paper = levels
    for (const larger of [false, true]) paper = extremesAround(paper, width, height, window, larger)
    return levels.map((level, i) => Math.floor((255 * (level - paper[i])) / Math.max(255 - paper[i], 64)))
}

/** Returns the smallest or the largest level in a window around each pixel. */
function extremesAround(levels, width, height, window, larger) {
    const rows = transpose(extremesInRows(levels, width, window, larger), width, height)
    return transpose(extremesInRows(rows, height, window, larger), height, width)
}

function extremesInRows(levels, width, window, larger) {
    const radius = window >> 1, size = 2 * radius + 1
    const result = new Uint8Array(levels.length), padded = new Uint8Array(width + 2 * radius)
    for (let start = 0; start < levels.length; start += width) {
        padded.fill(larger ? 0 : 255)
        padded.set(levels.subarray(start, start + width), radius)
        for (let span = 1, step; span < size; span += step) {
            step = Math.min(span, size - span)
            const end = padded.length - span - step + 1
            for (let i = 0; i < end; i++) {
                const other = padded[i + step]
                if (larger ? other > padded[i] : other < padded[i]) padded[i] = other
            }
        }
        result.set(padded.subarray(0, width), start)
    }
    return result
}

/** Returns the noise of the paper, the level above which there is certainly ink, and that of the strongest ink. */
function strengths(ink) {
    const counts = new Array(256).fill(0)
    for (const level of ink) counts[level]++
    const low = quantile(counts, 1), usual = quantile(counts, 4)
    let noise = usual + 4 * (usual - low)
    if (2 * noise >= highestOf(ink) && otsu(counts, -1).separation > MIN_SEPARATION) noise = low
    const { threshold } = otsu(counts, noise)
    return { noise, threshold, strongest: quantile(counts.fill(0, 0, threshold + 1), 9) }
}

/** Returns the smallest level that so many tenths of the pixels do not exceed. */
function quantile(counts, tenths) {
    const total = counts.reduce((sum, count) => sum + count, 0)
    let sum = 0
    return counts.findIndex((count) => 10 * (sum += count) >= tenths * total)
}

/** Divides the levels above `first` into two classes whose means differ most (Otsu 1979). */
function otsu(counts, first) {
    let number = 0, total = 0, squares = 0
    for (let level = first + 1; level < 256; level++) {
        number += counts[level]
        total += level * counts[level]
        squares += level * level * counts[level]
    }
    let below = 0, sumBelow = 0, best = 0, threshold = first
    for (let level = first + 1; level < 256; level++) {
        below += counts[level]
        sumBelow += level * counts[level]
        const above = number - below
        if (!below || !above) continue
        const difference = sumBelow / below - (total - sumBelow) / above
        const variance = below * above * (difference * difference)
        if (variance > best) {
            best = variance
            threshold = level
        }
    }
    return { threshold, separation: best / Math.max(number * squares - total * total, 1) }
}

/** Returns twice the ratio of the ink to its outline, which is about the mean width of its strokes. */
function strokeWidth(strong, width) {
    let count = 0, outline = 0
    strong.forEach((value, i) => {
        if (!value) return
        count++
        const column = i % width
        const inner = column > 0 && column < width - 1 && strong[i - 1] && strong[i + 1] && strong[i - width] && strong[i + width]
        if (!inner) outline++
    })
    return Math.floor((2 * count) / Math.max(outline, 1))
}

/** Returns the strong pixels near the largest connected ink, or near other with at least a tenth as many pixels. */
function nearLargest(strong, width, height) {
    const cell = Math.ceil(Math.max(width, height) / CELLS)
    const columns = Math.ceil(width / cell), rows = Math.ceil(height / cell)
    const cellOf = (i) => Math.floor(i / width / cell) * columns + Math.floor((i % width) / cell)
    const cells = new Uint32Array(columns * rows), groups = new Int32Array(columns * rows), sizes = [0]
    strong.forEach((value, i) => (cells[cellOf(i)] += value))
    cells.forEach((count, start) => {
        if (!count || groups[start]) return
        const found = [start]
        groups[start] = sizes.length
        let size = 0
        for (const place of found) {
            size += cells[place]
            const column = place % columns
            for (let x = Math.max(column - 1, 0); x < Math.min(column + 2, columns); x++) {
                for (const near of [place - column - columns + x, place - column + x, place - column + columns + x]) {
                    if (!cells[near] || groups[near]) continue // also outside the picture
                    groups[near] = sizes.length
                    found.push(near)
                }
            }
        }
        sizes.push(size)
    })
    const largest = Math.max(...sizes)
    return strong.map((value, i) => (value && 10 * sizes[groups[cellOf(i)]] >= largest ? 1 : 0))
}

function noteOn(strong, width, height) {
    if (2 * strong.reduce((sum, value) => sum + value, 0) > strong.length) return "More than half of the picture is ink."
    const { left, top, right, bottom } = boxAround({ width, height, levels: strong }, 0)
    const touches = left === 0 || top === 0 || right === width || bottom === height
    return touches ? "The ink touches the edge of the picture." : ""
}

function highestOf(levels) {
    return levels.reduce((most, level) => Math.max(most, level), 0)
}

function lowest(levels) {
    return levels.reduce((least, level) => Math.min(least, level), 255)
}

/** Returns a picture of the size that the network reads, in which the ink of a picture is centred. */
function prepare(picture, width, height) {
    if (picture.unchanged) return picture
    const box = inkBox(picture)
    if (!box) return resize(picture, width, height)
    const size = [width, height].map((length) => roundToEven(DIGIT_SHARE * length))
    const { left, top, right, bottom } = box
    const digit = strengthen(contain(placeOnPage(picture, -left, -top, right - left, bottom - top), ...size))
    const [x, y] = centreOfMass(digit)
    return placeOnPage(digit, roundToEven(width / 2 - x), roundToEven(height / 2 - y), width, height)
}

/** Tells whether nothing is drawn on a picture, or so little that its prepared version shows nothing. */
function isBlank(picture, prepared) {
    const range = highestOf(picture.levels) - lowest(picture.levels)
    if (picture.unchanged) return range === 0
    return !inkBox(picture) || range < MIN_CONTRAST || !prepared.levels.some((level) => level > 0)
}

function inkBox(picture) {
    return boxAround(picture, INK_THRESHOLD)
}

/** Returns the smallest { left, top, right, bottom } around all pixels above a level, or null. */
function boxAround({ width, height, levels }, threshold) {
    let left = width, top = height, right = 0, bottom = 0
    for (let row = 0, i = 0; row < height; row++) {
        for (let column = 0; column < width; column++, i++) {
            if (levels[i] <= threshold) continue
            left = Math.min(left, column)
            right = Math.max(right, column + 1)
            top = Math.min(top, row)
            bottom = row + 1
        }
    }
    return bottom ? { left, top, right, bottom } : null
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

/** Stretches the levels until the strongest tenth of the ink is 255: strokes of less than a pixel have become grey. */
function strengthen(picture) {
    const counts = new Array(256).fill(0)
    for (const level of picture.levels) if (level > FAINT) counts[level]++
    const strongest = quantile(counts, 9)
    if (!strongest) return picture
    return { ...picture, levels: picture.levels.map((level) => Math.min(Math.floor((level * 255) / strongest), 255)) }
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
    const result = new levels.constructor(levels.length)
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

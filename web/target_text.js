// Read and write the weights of a target as methods/core/targets.py does: NAME=WEIGHT, separated by commas or line breaks. Text that we do not
// understand stays as it is.
import { cells, sum } from './shares.js'

const WEIGHT = /^\s*([^=]+?)\s*=\s*([-+0-9.eE%]+)\s*$/
const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$/
const EVEN = ['uniform', 'balanced', 'even']

/**
 * Read the fields of a target node: { attributes, classes, shares, problem }.
 *
 * `known` (attribute -> classes) comes from the connected file. If it is null, the classes are those that the weights name. `problem` is the
 * first fault for which the node would refuse the target, as [key, English, values], or null. With a problem, shares are what could be read;
 * they are null if there are no classes to show.
 */
export function readTarget(attributesText, preset, weightsText, known = null) {
  const attributes = attributeNames(attributesText)
  const problem = attributeProblem(attributes, known)
  if (problem) return { attributes, classes: null, shares: null, problem }
  const classes = known ? attributes.map((name) => [...known[name]]) : classesIn(weightsText, attributes.length)
  if (!classes) {
    const unknown = ['editor.no_classes', 'Connect an ADP, a classifier or bias features, or write NAME=WEIGHT for every class.', {}]
    return { attributes, classes: null, shares: null, problem: unknown }
  }
  return { attributes, classes, ...readShares(preset, weightsText, cells(classes).map((cell) => cell.join('/'))) }
}

/** Split "A x B" or "A*B" into the attributes' names. */
function attributeNames(text) {
  return text.trim().split(/\s+x\s+|\*/).map((name) => name.trim())
}

/** Find what is wrong with the attributes; null if nothing is. */
function attributeProblem(attributes, known) {
  if (attributes.some((name) => !name)) return ['editor.no_attribute', 'Name an attribute first.', {}]
  if (new Set(attributes).size < attributes.length) return ['editor.twice', 'The same attribute is named twice. Remove one of them.', {}]
  const missing = known && attributes.find((name) => !known[name])
  if (!missing) return null
  const names = Object.keys(known).join(', ')
  return ['editor.unknown_attribute', "The connected file has no attribute '{name}'. Choose from: {names}.", { name: missing, names }]
}

/** Read the share of each of `names`: { shares, problem }. Shares are equal if the weights give none. */
function readShares(preset, text, names) {
  const even = names.map(() => 1 / names.length)
  if (preset === 'uniform' || isEven(text)) return { shares: even, problem: null }
  const { weights, problem } = readWeights(text, names)
  const total = weights ? sum(weights) : 0
  const shares = total > 0 ? weights.map((w) => w / total) : even
  if (problem || total > 0) return { shares, problem }
  return { shares, problem: ['editor.all_zero', 'All weights are 0. Move a slider to set a share.', {}] }
}

function isEven(text) {
  return EVEN.includes(text.trim().toLowerCase())
}

/** List the classes per attribute that weights name, in their order; null if a weight does not name one class per attribute. */
function classesIn(text, count) {
  const split = parts(text).map((part) => part.split('=')[0].trim().split('/').map((name) => name.trim()))
  if (!split.length || split.some((names) => names.length !== count || names.some((name) => !name))) return null
  if (isEven(text)) return null
  return Array.from({ length: count }, (_, i) => [...new Set(split.map((names) => names[i]))])
}

/** Read weights in the order of `names`: { weights, problem }. Names without a weight share what is left to 1; weights may be null. */
function readWeights(text, names) {
  const weights = new Map()
  let problem = null
  for (const part of parts(text)) {
    const [, name, value] = WEIGHT.exec(part) ?? []
    const weight = name === undefined ? NaN : number(value)
    const fault = weightProblem(part, name, weight, names, weights)
    if (fault) problem ??= fault
    else weights.set(name, weight)
  }
  if (!weights.size) return { weights: null, problem: problem ?? ['editor.no_weights', 'There are no weights yet. Move a slider to set a share.', {}] }
  const left = Math.max(0, 1 - sum([...weights.values()]))
  const each = left > 1e-9 ? left / (names.length - weights.size) : 0
  return { weights: names.map((name) => weights.get(name) ?? each), problem }
}

/** Find what is wrong with one weight; null if nothing is. `weights` are those that were read before it. */
function weightProblem(part, name, weight, names, weights) {
  if (name === undefined || !Number.isFinite(weight) || weight < 0)
    return ['editor.not_a_weight', "'{part}' is not a weight. Write NAME=NUMBER.", { part: part.trim() }]
  if (!names.includes(name))
    return ['editor.unknown_class', "This target has no '{name}'. Choose from: {names}.", { name, names: names.join(', ') }]
  if (weights.has(name)) return ['editor.class_twice', "'{name}' has two weights. Remove one of them.", { name }]
  return null
}

/**
 * Write shares into the text of the weights.
 *
 * Each weight is replaced in its position, in per cent if it was. Missing classes are added at the end. Only `names` are touched.
 */
export function writeWeights(text, names, shares) {
  const isJoint = names[0]?.includes('/')
  const fresh = (percent) => names.map((name, i) => `${name}=${format(shares[i], percent)}`)
  if (!text.trim() || isEven(text)) return fresh(false).join(isJoint ? '\n' : ', ')
  const { replaced, done, percent } = replaceWeights(text, names, shares)
  const added = fresh(percent).filter((_, i) => !done.has(i))
  if (!added.length) return replaced
  const separator = text.includes('\n') ? '\n' : ', '
  return replaced + gap(replaced, separator) + added.join(separator)
}

/** Replace the weights that a text has: { replaced: the new text, done: indices of their names, percent: whether one is in per cent }. */
function replaceWeights(text, names, shares) {
  const done = new Set()
  let percent = false
  const pieces = text.split(/([,\n])/).map((part, position) => {
    const isSeparator = position % 2
    const match = isSeparator ? null : WEIGHT.exec(part)
    const index = match ? names.indexOf(match[1]) : -1
    if (index < 0 || done.has(index)) return part
    done.add(index)
    const inPercent = match[2].endsWith('%')
    percent ||= inPercent
    const start = part.lastIndexOf(match[2])
    return part.slice(0, start) + format(shares[index], inPercent) + part.slice(start + match[2].length)
  })
  return { replaced: pieces.join(''), done, percent }
}

/** Choose what stands between a text and a weight that is added to it. */
function gap(text, separator) {
  if (!/[,\n]\s*$/.test(text)) return separator
  return separator === '\n' && !text.endsWith('\n') ? '\n' : ''
}

function format(share, percent) {
  return percent ? `${+(100 * share).toFixed(2)}%` : String(+share.toFixed(4))
}

function parts(text) {
  return text.split(/[,\n]/).filter((part) => part.trim())
}

function number(value) {
  const percent = value.endsWith('%')
  const digits = percent ? value.slice(0, -1) : value
  return NUMBER.test(digits) ? Number(digits) / (percent ? 100 : 1) : NaN
}

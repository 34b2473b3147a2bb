// The text of a target as methods/targets.py reads it: NAME=WEIGHT between commas or lines. What is not understood is kept as it stands.
import { cells, sum } from './shares.js'

const WEIGHT = /^\s*([^=]+?)\s*=\s*([-+0-9.eE%]+)\s*$/
const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$/
const EVEN = ['uniform', 'balanced', 'even']

/** Names of the attributes in "A x B" or "A*B". */
export function attributeNames(text) {
  return text.trim().split(/\s+x\s+|\*/).map((name) => name.trim())
}

/**
 * What the form of a target node says: { attributes, classes, shares, problem }. `known` (attribute -> classes, or null) comes from what is
 * connected; without it the classes are those that the weights name. `problem` ([key, English, values], or null) is the first thing that
 * the node would refuse; shares are then what could be read, and null where there are no classes to show.
 */
export function readTarget(attributesText, preset, weightsText, known = null) {
  const attributes = attributeNames(attributesText)
  const stuck = (problem) => ({ attributes, classes: null, shares: null, problem })
  if (attributes.some((name) => !name)) return stuck(['editor.no_attribute', 'Name an attribute first.', {}])
  if (new Set(attributes).size < attributes.length) return stuck(['editor.twice', 'An attribute is named twice.', {}])
  const missing = known && attributes.find((name) => !known[name])
  if (missing) {
    const names = Object.keys(known).join(', ')
    return stuck(['editor.unknown_attribute', "'{name}' is not known to what is connected; known: {names}.", { name: missing, names }])
  }
  const classes = known ? attributes.map((name) => [...known[name]]) : classesIn(weightsText, attributes.length)
  if (!classes) return stuck(['editor.no_classes', 'Connect an ADP, a classifier or bias features, or write NAME=WEIGHT for every class.', {}])
  const names = cells(classes).map((cell) => cell.join('/'))
  const even = names.map(() => 1 / names.length)
  if (preset === 'uniform' || EVEN.includes(weightsText.trim().toLowerCase())) return { attributes, classes, shares: even, problem: null }
  const { weights, problem } = readWeights(weightsText, names)
  const total = weights ? sum(weights) : 0
  if (problem) return { attributes, classes, shares: total > 0 ? weights.map((w) => w / total) : even, problem }
  if (total <= 0) return { attributes, classes, shares: even, problem: ['editor.all_zero', 'All weights are 0: move a slider.', {}] }
  return { attributes, classes, shares: weights.map((w) => w / total), problem: null }
}

/** Classes per attribute that weights name, in their order; null where they do not name one class per attribute. */
export function classesIn(text, count) {
  const split = parts(text).map((part) => part.split('=')[0].trim().split('/').map((name) => name.trim()))
  if (!split.length || split.some((names) => names.length !== count || names.some((name) => !name))) return null
  if (EVEN.includes(text.trim().toLowerCase())) return null
  return Array.from({ length: count }, (_, i) => [...new Set(split.map((names) => names[i]))])
}

/** Weights in the order of `names`; those that are left out share what is left to 1. { weights, problem }, of which weights may be null. */
function readWeights(text, names) {
  const given = new Map()
  let problem = null
  for (const part of parts(text)) {
    const [, name, value] = WEIGHT.exec(part) ?? []
    const weight = name === undefined ? NaN : number(value)
    if (name === undefined || !Number.isFinite(weight) || weight < 0)
      problem ??= ['editor.not_a_weight', "'{part}' is not a weight: write NAME=NUMBER.", { part: part.trim() }]
    else if (!names.includes(name)) problem ??= ['editor.unknown_class', "There is no '{name}' here; known: {names}.", { name, names: names.join(', ') }]
    else if (given.has(name)) problem ??= ['editor.class_twice', "'{name}' is given twice.", { name }]
    else given.set(name, weight)
  }
  if (!given.size) return { weights: null, problem: problem ?? ['editor.no_weights', 'No weights yet: move a slider.', {}] }
  const left = Math.max(0, 1 - sum([...given.values()]))
  const each = left > 1e-9 ? left / (names.length - given.size) : 0
  return { weights: names.map((name) => given.get(name) ?? each), problem }
}

/**
 * The text with these shares: weights that stand there are replaced where they stand, in per cent where they were; classes that are missing
 * are added at the end; what is not understood stays. Names of `names` only are touched.
 */
export function writeWeights(text, names, shares) {
  const fresh = (percent) => names.map((name, i) => `${name}=${written(shares[i], percent)}`)
  const separator = text.includes('\n') || (!text.trim() && names[0]?.includes('/')) ? '\n' : ', '
  if (!text.trim() || EVEN.includes(text.trim().toLowerCase())) return fresh(false).join(names[0]?.includes('/') ? '\n' : ', ')
  const done = new Set()
  let percent = false
  const pieces = text.split(/([,\n])/).map((part, place) => {
    const match = place % 2 ? null : WEIGHT.exec(part)
    const index = match ? names.indexOf(match[1]) : -1
    if (index < 0 || done.has(index)) return part
    done.add(index)
    percent ||= match[2].endsWith('%')
    const at = part.lastIndexOf(match[2])
    return part.slice(0, at) + written(shares[index], match[2].endsWith('%')) + part.slice(at + match[2].length)
  })
  const added = fresh(percent).filter((_, i) => !done.has(i))
  const whole = pieces.join('')
  if (!added.length) return whole
  const gap = /[,\n]\s*$/.test(whole) ? (separator === '\n' && !whole.endsWith('\n') ? '\n' : '') : separator
  return whole + gap + added.join(separator)
}

function written(share, percent) {
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

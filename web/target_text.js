// Read and write the fields of a target node. Text that we do not understand stays as it is.
import { cells, sum } from './shares.js'
import { equalParts, folded, namedCells, readWeights, writtenCell } from './weights_text.js'
import { bareName, outsideQuotes, plainSigns } from './written_names.js'

const WEIGHT = /^\s*(\S.*?)\s*=\s*([-+0-9.eE%]+)\s*$/
const ATTRIBUTES = '\\s+[xX×]\\s+|\\*|×|,'

/**
 * Read the fields of a target node: { attributes, classes, shares, problem }.
 *
 * `known` (attribute -> classes) comes from the connected file. If it is null, the classes are those that the weights name. `problem` is the
 * first fault for which the node would refuse the target, as [key, English, values], or null. With a problem, shares are what could be read;
 * they are null if there are no classes to show.
 */
export function readTarget(attributesText, preset, weightsText, known = null) {
  const attributes = attributeNames(attributesText).map((name) => knownSpelling(name, known))
  const problem = attributeProblem(attributes, known)
  if (problem) return { attributes, classes: null, shares: null, problem }
  const text = plainSigns(weightsText)
  const classes = known ? attributes.map((name) => [...known[name]]) : classesIn(text, attributes.length)
  if (!classes) {
    const unknown = ['editor.no_classes', 'Connect an ADP, a classifier or bias features, or write NAME=WEIGHT for every class.', {}]
    return { attributes, classes: null, shares: null, problem: unknown }
  }
  return { attributes, classes, ...readShares(preset, text, cells(classes)) }
}

/** Split "A x B", "A, B" or "A*B" into the attributes' names. */
function attributeNames(text) {
  return plainSigns(text).trim().split(outsideQuotes(ATTRIBUTES)).map(bareName)
}

/** Return the known name that differs in case or blanks at most, else the name itself. */
function knownSpelling(name, known) {
  if (!known || name in known) return name
  const alike = Object.keys(known).filter((other) => folded(other) === folded(name))
  return alike.length === 1 ? alike[0] : name
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

/** Read the share of each of the cells: { shares, problem }. Shares are equal if the weights give none. */
function readShares(preset, text, table) {
  const even = table.map(() => 1 / table.length)
  if (preset === 'uniform') return { shares: even, problem: null }
  const { weights, problem } = readWeights(text, table)
  const total = weights ? sum(weights) : 0
  const shares = total > 0 ? weights.map((w) => w / total) : even
  if (problem || total > 0) return { shares, problem }
  return { shares, problem: ['editor.all_zero', 'All weights are 0. Move a slider to set a share.', {}] }
}

/** List the classes per attribute that weights name, in their order; null if they do not name one class per attribute. */
function classesIn(text, count) {
  const named = namedCells(text, count)
  return named && Array.from({ length: count }, (_, i) => [...new Set(named.map((cell) => cell[i]))])
}

/**
 * Write shares into the text of the weights.
 *
 * If the text has the form NAME=WEIGHT, each weight is replaced in its position, in per cent if it was, and missing classes are added at the
 * end. Other forms that the node reads are written anew. Only the cells in `table` are touched.
 */
export function writeWeights(text, table, shares) {
  const names = table.map(writtenCell)
  const isJoint = table[0]?.length > 1
  const fresh = (percent) => names.map((name, i) => `${name}=${format(shares[i], percent)}`)
  const plain = plainSigns(text)
  const { replaced, done, percent } = replaceWeights(text, names, shares)
  const isOtherForm = !done.size && !readWeights(plain, table).problem
  if (!text.trim() || equalParts(plain) || isOtherForm) return fresh(false).join(isJoint ? '\n' : ', ')
  const added = fresh(percent).filter((_, i) => !done.has(i))
  if (!added.length) return replaced
  const separator = text.includes('\n') ? '\n' : ', '
  return replaced + gap(replaced, separator) + added.join(separator)
}

/** Replace the weights that a text has: { replaced: the new text, done: indices of their names, percent: whether one is in per cent }. */
function replaceWeights(text, names, shares) {
  const done = new Set()
  let percent = false
  const spelled = names.map((name) => folded(bareName(name)))
  const pieces = text.split(/([,\n](?=(?:[^"]*"[^"]*")*[^"]*$))/).map((part, position) => {
    const isSeparator = position % 2
    const match = isSeparator ? null : WEIGHT.exec(part)
    const index = match ? spelled.indexOf(folded(bareName(match[1]))) : -1
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

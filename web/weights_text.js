// Read the weights of a target as methods/core/target_text.py does. tests/data/target_texts.json lists forms and faults for both.
import { bareName, outsideQuotes, plainSigns, splitNames, writtenName } from './written_names.js'

const EQUAL = ['uniform', 'balanced', 'even', 'evenly', 'equal', 'equally', 'all equal', 'equal shares']
const EQUAL_PARTS = {
  'half and half': 2, 'half half': 2, 'half/half': 2, 'half-half': 2, halves: 2, 'fifty fifty': 2, 'fifty-fifty': 2,
  thirds: 3, 'a third each': 3, 'one third each': 3, quarters: 4, 'a quarter each': 4
}
const FRACTIONS = {
  'a half': 1 / 2, 'one half': 1 / 2, half: 1 / 2, 'a third': 1 / 3, 'one third': 1 / 3, third: 1 / 3, 'two thirds': 2 / 3,
  'a quarter': 1 / 4, 'one quarter': 1 / 4, quarter: 1 / 4, 'three quarters': 3 / 4
}
const NUMBER = '[-+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:[eE][-+]?\\d+)?'
const VALUE = `(?:${NUMBER}(?:\\s*/\\s*${NUMBER})?\\s*%?|${Object.keys(FRACTIONS).join('|')})`
const IS_VALUE = new RegExp(`^${VALUE}$`)
const LISTS = [/\s*[,;\n]\s*/, /\s*[/:]\s*/, /\s*[-–]\s*/, /\s+/] // what may stand between numbers without names
const SEPARATORS = '[,;\\n]'
const BETWEEN = '\\s*(?:and\\s+|&\\s*)?'

/** Return the number of classes that words for equal shares mean; -1 for any number, 0 for other text. */
export function equalParts(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean).join(' ').replace(/^[ .!]+|[ .!]+$/g, '')
  return EQUAL.includes(words) ? -1 : (EQUAL_PARTS[words] ?? 0)
}

/** Write a cell so that it can be read back, as "yes/long". */
export function writtenCell(cell) {
  return cell.map(writtenName).join('/')
}

/** List the cells that weights name, in their order; null if a text does not name cells of `count` attributes. */
export function namedCells(text, count) {
  if (equalParts(text) || numbersIn(text)) return null
  const { pairs, problem } = readPairs(text, count, null)
  return problem || !pairs.length ? null : pairs.map(([cell]) => cell)
}

/** Read weights in the order of `cells`: { weights, problem }. Cells without a weight share what is left to 1; weights may be null. */
export function readWeights(text, cells) {
  const names = cells.map(writtenCell)
  const parts = equalParts(text)
  if (parts) {
    const problem = parts === -1 || parts === cells.length ? null : otherCount(text, parts, names)
    return { weights: cells.map(() => 1 / cells.length), problem }
  }
  const numbers = numbersIn(text)
  if (numbers) return inOrder(numbers, text, names)
  const { pairs, problem } = readPairs(text, cells[0].length, cells)
  return collected(pairs, problem, cells, names)
}

/** Sum up pairs of a cell and its weight: { weights, problem }. */
function collected(pairs, firstProblem, cells, names) {
  const weights = new Map()
  let problem = firstProblem
  for (const [cell, weight] of pairs) {
    const index = cells.findIndex((known) => same(known, cell))
    const fault = weightProblem(cell, index, weight, weights, names)
    if (fault) problem ??= fault
    else weights.set(index, weight)
  }
  if (!weights.size) return { weights: null, problem: problem ?? ['editor.no_weights', 'There are no weights yet. Move a slider to set a share.', {}] }
  return { weights: filledUp(weights, cells.length), problem }
}

/** Give the cells that were left out the rest. */
function filledUp(weights, count) {
  const [first] = weights.values()
  const scale = weights.size === 1 && count > 1 && first > 1 && first <= 100 ? 100 : 1
  const left = 1 - [...weights.values()].reduce((total, weight) => total + weight / scale, 0)
  const each = weights.size < count && left > 1e-9 ? left / (count - weights.size) : 0
  return Array.from({ length: count }, (_, i) => (weights.has(i) ? weights.get(i) / scale : each))
}

/** Find what is wrong with one weight; null if nothing is. `weights` are those that were read before it, by index. */
function weightProblem(cell, index, weight, weights, names) {
  const name = writtenCell(cell)
  if (index < 0) return ['editor.unknown_class', "This target has no '{name}'. Choose from: {names}.", { name, names: names.join(', ') }]
  if (weights.has(index)) return ['editor.class_twice', "'{name}' has two weights. Remove one of them.", { name }]
  if (!Number.isFinite(weight) || weight < 0) return notAWeight(`${name}=${weight}`)
  return null
}

function notAWeight(part) {
  return ['editor.not_a_weight', "'{part}' is not a weight. Write NAME=NUMBER.", { part: part.trim() }]
}

function otherCount(text, met, names) {
  const values = { text: text.trim(), met, count: names.length, names: names.join(', ') }
  return ['editor.other_count', "'{text}' has {met} weights. There are {count} classes: {names}.", values]
}

/** Return numbers without names as the weights of the cells in their order: { weights, problem }. */
function inOrder(numbers, text, names) {
  if (numbers.length !== names.length) return { weights: null, problem: otherCount(text, numbers.length, names) }
  const [a, b] = numbers.map(({ value }) => value)
  if (numbers.length === 2 && /^\d+\s*\/\s*\d+$/.test(text.trim()) && a < b && ![1, 10, 100].includes(a + b)) {
    const values = { text: text.trim(), fraction: `${names[0]}=${a}/${b}`, weights: `${a}:${b}` }
    return { weights: null, problem: ['editor.fraction_or_weights', "'{text}' may mean two things. Write {fraction} or {weights}.", values] }
  }
  const inPercent = numbers.some(({ percent }) => percent)
  const weights = numbers.map(({ value, percent }) => (inPercent && !percent ? value / 100 : value))
  const wrong = weights.find((weight) => !Number.isFinite(weight) || weight < 0)
  return { weights: wrong === undefined ? weights : null, problem: wrong === undefined ? null : notAWeight(text) }
}

/** Read numbers without names; null for other text. */
function numbersIn(text) {
  for (const between of LISTS) {
    const parts = text.trim().split(between)
    const values = parts.map(valueOf)
    if (parts.length > 1 && !values.includes(null)) return parts.map((part, i) => ({ value: values[i], percent: part.includes('%') }))
  }
  return null
}

/** Read pairs of a cell and its weight: { pairs, problem }. `cells` are those that are known, or null. */
function readPairs(text, count, cells) {
  const pairs = []
  let problem = null
  for (const part of splitNames(text, SEPARATORS)) {
    const [name, value] = atLastSign(part)
    const read = value === undefined ? sequence(part, count, cells) : [[cellOf(name, count, cells), valueOf(value)]]
    const wrong = !read.length || read.some(([cell, weight]) => weight === null || (!cells && (cell.length !== count || cell.includes(''))))
    if (wrong) problem ??= notAWeight(part)
    else pairs.push(...read)
  }
  return { pairs, problem }
}

/** Cut "NAME=VALUE" or "NAME: VALUE" at its sign outside of quotes; one part if it has none, or several. */
function atLastSign(part) {
  for (const sign of ['=', ':']) {
    const cut = part.split(outsideQuotes(sign))
    if (cut.length === 2 && cut[0].trim() && (sign === '=' || valueOf(cut[1]) !== null)) return cut
  }
  return [part]
}

/** Read "NAME VALUE NAME VALUE" or "VALUE NAME VALUE NAME"; empty for other text. */
function sequence(part, count, cells) {
  const name = cells ? knownNames(cells) : freeNames()
  for (const [first, second] of [[`(?<name>${name})\\s*[=:]?\\s*`, `(?<value>${VALUE})`], [`(?<value>${VALUE})\\s*(?:of\\s+)?`, `(?<name>${name})`]]) {
    const item = new RegExp(`${BETWEEN}${first}${second}(?=\\s|$)`, 'iyu')
    const pairs = []
    let end = 0
    for (let match = item.exec(part); match; match = item.exec(part)) {
      pairs.push([cellOf(match.groups.name, count, cells), valueOf(match.groups.value)])
      end = item.lastIndex
    }
    if (pairs.length && !part.slice(end).trim()) return pairs
  }
  return []
}

function knownNames(cells) {
  const escaped = (name) => plainSigns(name).replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  const longestFirst = [...cells].sort((a, b) => b.join('/').length - a.join('/').length)
  return longestFirst.map((cell) => cell.map((name) => `"?${escaped(name)}"?`).join('/')).join('|')
}

function freeNames() {
  const one = '(?:"[^"]+"|[\\p{L}_][\\p{L}\\p{N}_-]*(?:\\s+(?!and\\b)[\\p{L}_][\\p{L}\\p{N}_-]*)*?)'
  return `${one}(?:\\s*/\\s*${one})*`
}

/** Read the name of a cell, in the spelling of the known one if there is such. */
function cellOf(text, count, cells) {
  const parts = count > 1 ? text.split(outsideQuotes('/')).map(bareName) : [bareName(text)]
  if (!cells || cells.some((cell) => same(cell, parts))) return parts
  const alike = cells.filter((cell) => same(cell.map(folded), parts.map(folded)))
  return alike.length === 1 ? alike[0] : parts
}

function same(a, b) {
  return a.length === b.length && a.every((name, i) => name === b[i])
}

/** Reduce a name to what two spellings of it share. */
export function folded(name) {
  return plainSigns(name).toLowerCase().split(/\s+/).filter(Boolean).join(' ')
}

/** Read a number, a percentage, a fraction or a fraction in words; null for other text. */
function valueOf(text) {
  const value = text.split(/\s+/).filter(Boolean).join(' ')
  if (value.toLowerCase() in FRACTIONS) return FRACTIONS[value.toLowerCase()]
  if (!IS_VALUE.test(value)) return null
  const [number, below] = value.replace('%', '').split('/')
  if (below !== undefined && Number(below) === 0) return null
  return Number(number) / (below === undefined ? 1 : Number(below)) / (value.endsWith('%') ? 100 : 1)
}

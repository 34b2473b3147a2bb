// Arithmetic of shares that sum to 1, without the front end.
//
// A joint table is a flat, row-major list of shares, as in methods/core/targets.py: the last attribute varies fastest. `counts` are the numbers of
// classes per attribute.

/**
 * Set one share; the others keep their proportions.
 *
 * `locked` holds the indices of shares that do not change. The new share is limited to what they leave.
 */
export function withShare(shares, index, share, locked = []) {
  const isFree = shares.map((_, i) => i !== index && !locked.includes(i))
  const taken = sum(shares.filter((_, i) => i !== index && !isFree[i]))
  const room = Math.max(0, 1 - taken)
  const count = isFree.filter(Boolean).length
  const wanted = count ? Math.min(Math.max(share, 0), room) : room
  const before = sum(shares.filter((_, i) => isFree[i]))
  const scaled = (s) => (before > 1e-9 ? (s * (room - wanted)) / before : (room - wanted) / count)
  return shares.map((s, i) => (i === index ? wanted : isFree[i] ? scaled(s) : s))
}

/** Sum a joint table to the shares of one attribute's classes. */
export function marginal(shares, counts, attribute) {
  const totals = Array(counts[attribute]).fill(0)
  shares.forEach((s, cell) => (totals[classOf(cell, counts, attribute)] += s))
  return totals
}

/** Compute the class index of one attribute in a cell. */
export function classOf(cell, counts, attribute) {
  return Math.floor(cell / product(counts.slice(attribute + 1))) % counts[attribute]
}

/**
 * Set the marginal share of one class in a joint table, as withShare does.
 *
 * Within each class the other attributes keep their proportions. A class that had no share gets the proportions of the complete table.
 */
export function withMarginal(shares, counts, attribute, index, share, locked = []) {
  const before = marginal(shares, counts, attribute)
  const after = withShare(before, index, share, locked)
  const rest = product(counts.slice(attribute + 1))
  const otherCell = (cell) => Math.floor(cell / (rest * counts[attribute])) * rest + (cell % rest) // without this attribute
  const others = Array(shares.length / counts[attribute]).fill(0)
  shares.forEach((s, cell) => (others[otherCell(cell)] += s))
  return shares.map((s, cell) => {
    const k = classOf(cell, counts, attribute)
    return before[k] > 1e-9 ? (s * after[k]) / before[k] : after[k] * others[otherCell(cell)]
  })
}

/**
 * Carry the shares of one target over to another, each { attributes, classes }, by the attributes that both have.
 *
 * Classes of the other attributes get equal shares. Returns null if the targets have no attribute in common, or if classes were lost.
 */
export function carriedOver(shares, from, to) {
  const common = from.attributes.filter((name) => to.attributes.includes(name))
  if (!common.length) return null
  const key = (cell, attributes) => common.map((name) => cell[attributes.indexOf(name)]).join('/')
  const totals = new Map()
  cells(from.classes).forEach((cell, i) => {
    const name = key(cell, from.attributes)
    totals.set(name, (totals.get(name) ?? 0) + shares[i])
  })
  const table = cells(to.classes)
  const split = table.length / product(common.map((name) => to.classes[to.attributes.indexOf(name)].length))
  const carried = table.map((cell) => (totals.get(key(cell, to.attributes)) ?? 0) / split)
  return Math.abs(sum(carried) - 1) < 1e-6 ? carried : null
}

/** Round shares to multiples of 1/units that sum to 1: by largest remainder, the first ones if remainders are equal. */
export function rounded(shares, units = 1000) {
  const floors = shares.map((s) => Math.floor(s * units + 1e-6))
  const order = shares.map((s, i) => [s * units - floors[i], i]).sort((a, b) => b[0] - a[0] || a[1] - b[1])
  const left = units - sum(floors)
  for (let i = 0; i < left; i++) floors[order[i % order.length][1]] += 1
  return floors.map((f) => f / units)
}

/** List the cells of a joint table, each with one class per attribute, in the table's order. */
export function cells(classes) {
  return classes.reduce((rows, names) => rows.flatMap((row) => names.map((name) => [...row, name])), [[]])
}

/** Add numbers. */
export function sum(numbers) {
  return numbers.reduce((a, b) => a + b, 0)
}

/** Multiply numbers. */
export function product(numbers) {
  return numbers.reduce((a, b) => a * b, 1)
}

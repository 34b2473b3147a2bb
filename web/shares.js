// Arithmetic of shares that sum to 1, without the front end: one share set, a marginal of a joint table set, and rounding that keeps the sum.
// Joint tables are flat and row-major (the last attribute runs fastest), as in methods/targets.py; `counts` are the classes per attribute.

/** Shares with one of them set as near to `share` as `held` (indices that keep theirs) leaves room; the others keep their proportions. */
export function withShare(shares, index, share, held = []) {
  const free = shares.map((_, i) => i !== index && !held.includes(i))
  const kept = sum(shares.filter((_, i) => i !== index && !free[i]))
  const room = Math.max(0, 1 - kept)
  const count = free.filter(Boolean).length
  const wanted = count ? Math.min(Math.max(share, 0), room) : room
  const before = sum(shares.filter((_, i) => free[i]))
  const each = (s) => (before > 1e-9 ? (s * (room - wanted)) / before : (room - wanted) / count)
  return shares.map((s, i) => (i === index ? wanted : free[i] ? each(s) : s))
}

/** Share of every class of one attribute. */
export function marginal(shares, counts, attribute) {
  const totals = Array(counts[attribute]).fill(0)
  shares.forEach((s, cell) => (totals[classOf(cell, counts, attribute)] += s))
  return totals
}

/** Class index of one attribute in a cell. */
export function classOf(cell, counts, attribute) {
  return Math.floor(cell / product(counts.slice(attribute + 1))) % counts[attribute]
}

/**
 * Shares with one attribute's marginal set for one class, as withShare does it; within a class the other attributes keep their
 * proportions, and a class that had nothing takes those of the whole table.
 */
export function withMarginal(shares, counts, attribute, index, share, held = []) {
  const before = marginal(shares, counts, attribute)
  const after = withShare(before, index, share, held)
  const rest = product(counts.slice(attribute + 1))
  const other = (cell) => Math.floor(cell / (rest * counts[attribute])) * rest + (cell % rest)
  const others = Array(shares.length / counts[attribute]).fill(0)
  shares.forEach((s, cell) => (others[other(cell)] += s))
  return shares.map((s, cell) => {
    const k = classOf(cell, counts, attribute)
    return before[k] > 1e-9 ? (s * after[k]) / before[k] : after[k] * others[other(cell)]
  })
}

/** Shares in whole units of 1/units that sum to 1: largest remainder, the first ones where they are alike. */
export function rounded(shares, units = 1000) {
  const floors = shares.map((s) => Math.floor(s * units + 1e-6))
  const order = shares.map((s, i) => [s * units - floors[i], i]).sort((a, b) => b[0] - a[0] || a[1] - b[1])
  const left = units - sum(floors)
  for (let i = 0; i < left; i++) floors[order[i % order.length][1]] += 1
  return floors.map((f) => f / units)
}

/** Every combination of one class per attribute, in the order of a flat table. */
export function cells(classes) {
  return classes.reduce((rows, names) => rows.flatMap((row) => names.map((name) => [...row, name])), [[]])
}

/** Sum of numbers. */
export function sum(numbers) {
  return numbers.reduce((a, b) => a + b, 0)
}

/** Product of numbers. */
export function product(numbers) {
  return numbers.reduce((a, b) => a * b, 1)
}

// Whole percentages of shares, which add up to those of the sum.

/**
 * Round shares to whole percentages by the largest remainder, so that shares that sum to 1 give 100.
 *
 * Ties go to the first share.
 */
export function percents(shares) {
  const exact = shares.map((share) => 100 * share)
  const whole = exact.map((value) => Math.floor(value + 1e-9))
  const missing = Math.round(exact.reduce((a, b) => a + b, 0)) - whole.reduce((a, b) => a + b, 0)
  const order = exact.map((value, i) => [value - whole[i], i]).sort((a, b) => b[0] - a[0] || a[1] - b[1])
  for (const [, i] of order.slice(0, missing)) whole[i] += 1
  return whole
}

// Names as users write them, as methods/core/written_names.py reads them: between separators, in double quotes if they hold one themselves.

const SIGNS = new Map([...'，、；：＝％／．－＋＊｜＂“”„«»‟０１２３４５６７８９\u3000\u00a0'].map((sign, i) => [sign, `${',,;:=%/.-+*|'}""""""${'"0123456789  '}`[i]]))
const NEEDS_QUOTES = /[,;:=%/|<>*\n"]|^\s|\s$|\s[xX×]\s|^[-+.\d]/

/** Replace full-width signs and digits, and curly quotes, by the ASCII ones. */
export function plainSigns(text) {
  return [...text].map((sign) => SIGNS.get(sign) ?? sign).join('')
}

/** Make a global pattern that matches only outside of double quotes. */
export function outsideQuotes(pattern) {
  return new RegExp(`(?:${pattern})(?=(?:[^"]*"[^"]*")*[^"]*$)`, 'g')
}

/** Split text at a pattern outside of quotes; the parts are trimmed, and empty ones are left out. */
export function splitNames(text, separators) {
  return text.split(outsideQuotes(separators)).map((part) => part.trim()).filter(Boolean)
}

/** Return a name without the quotes around it. */
export function bareName(text) {
  const name = text.trim()
  return name.length > 1 && name.startsWith('"') && name.endsWith('"') ? name.slice(1, -1).trim() : name
}

/** Write a name so that it can be read back: in quotes if it holds a separator. */
export function writtenName(name) {
  return NEEDS_QUOTES.test(name) ? `"${name}"` : name
}

// Colours of the pack's socket types, in both renderers. Those of one graph differ in lightness too, for people who see few hues.
import { app } from '../../scripts/app.js'

export const COLOURS = {
  EQUIPOISE_ADP: '#56B4E9',
  EQUIPOISE_TARGET: '#E69F00',
  EQUIPOISE_CLASSIFIER: '#009E73',
  EQUIPOISE_LEDGER: '#4E79A7',
  EQUIPOISE_FEATURES: '#CC79A7',
  EQUIPOISE_LABELS: '#F0E442',
  EQUIPOISE_SAE: '#D55E00',
  EQUIPOISE_BIAS_FEATURES: '#B58BD6',
  EQUIPOISE_NEURON_PATH: '#A47551',
  EQUIPOISE_ZERO_SHOT_HEAD: '#76D7C4',
  EQUIPOISE_DATASET: '#BFB8AF'
}

app.registerExtension({
  name: 'equipoise.SocketColours',
  setup() {
    for (const map of [app.canvas.default_connection_color_byType, window.LGraphCanvas?.link_type_colors]) if (map) paint(map)
    // Nodes in HTML read a property of the page. The front end removes it from the page's own style when the palette changes, so it is a rule.
    const sheet = new CSSStyleSheet()
    const rules = Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`)
    sheet.replaceSync(`:root { ${rules.join(' ')} }`)
    document.adoptedStyleSheets.push(sheet)
  }
})

/** Fix our types' colours in one of the canvas's tables. The front end empties types that a palette does not know. */
function paint(map) {
  for (const [type, colour] of Object.entries(COLOURS))
    Object.defineProperty(map, type, { get: () => colour, set: () => {}, enumerable: true, configurable: true })
}

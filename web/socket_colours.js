// Colours of the pack's socket types, in both renderers. People with red-green blindness can tell them apart, on dark and on light nodes, as
// tests/unit/web/test_socket_colours.py checks.
import { app } from '../../scripts/app.js'

export const COLOURS = {
  EQUIPOISE_ADP: '#3AC7E1',
  EQUIPOISE_TARGET: '#DCA58A',
  EQUIPOISE_CLASSIFIER: '#0D8E80',
  EQUIPOISE_LEDGER: '#6E8AFF',
  EQUIPOISE_FEATURES: '#EB74AD',
  EQUIPOISE_LABELS: '#86CA02',
  EQUIPOISE_SAE: '#8A591D',
  EQUIPOISE_BIAS_FEATURES: '#7E27FF',
  EQUIPOISE_NEURON_PATH: '#A1495C',
  EQUIPOISE_ZERO_SHOT_HEAD: '#1C6B8A',
  EQUIPOISE_DATASET: '#958800'
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

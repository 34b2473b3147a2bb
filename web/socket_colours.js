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
    Object.assign(app.canvas.default_connection_color_byType ?? {}, COLOURS)
    Object.assign(window.LGraphCanvas?.link_type_colors ?? {}, COLOURS)
    // Nodes in HTML read a property of the page. The front end removes it from the page's own style when the palette changes, so it is a rule.
    const sheet = new CSSStyleSheet()
    const rules = Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`)
    sheet.replaceSync(`:root { ${rules.join(' ')} }`)
    document.adoptedStyleSheets.push(sheet)
  }
})

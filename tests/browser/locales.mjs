// Compare the front end of a running ComfyUI with locales/: nodes, sockets and tooltips in each language, and the search by names.
//
//   node locales.mjs PLAYWRIGHT_FOLDER CHROMIUM URL LOCALES_FOLDER LANGUAGE ...
//
// Prints one JSON object per language: texts that differ from the files (from English for a language that the front end does not have), nodes
// that the search does not find by their English name or by the start of the name shown, and errors of the console that name the pack or the
// translation. Exits with 1 if there are any.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pause } from './chromium.mjs'
import { open, store, visit } from './front_end.mjs'

const [playwright, chromium, url, folder, ...languages] = process.argv.slice(2)
const read = (language) => JSON.parse(readFileSync(join(folder, language, 'nodeDefs.json'), 'utf-8'))
const ours = (text) => /equipoise|i18n|translat|compil/i.test(text) && !/favicon/.test(text)
const { page, takeErrors, close } = await open(url, playwright, chromium, { size: [1280, 800] })
let failed = false
try {
  for (const language of languages) {
    await store(url, { 'Comfy.Locale': language })
    await visit(page, url)
    await pause(page, 1000)
    const report = await page.evaluate(look, { language, english: read('en'), wanted: read(language) })
    const errors = takeErrors().errors.filter(ours)
    failed ||= report.different.length > 0 || report.unfound.length > 0 || errors.length > 0 || !report.nodes
    console.log(JSON.stringify({ language, ...report, errors }))
  }
} finally {
  await close()
}
process.exit(failed ? 1 : 0)

// Runs in the page.
async function look({ language, english, wanted }) {
  const root = [...document.querySelectorAll('*')].find((e) => e.__vue_app__)
  const { $t, $i18n, $pinia } = root.__vue_app__.config.globalProperties
  const shown = $i18n.locale
  const files = shown === language ? wanted : english
  const different = []
  const same = (what, is, should) => is === should || different.push(`${what}: ${is} | ${should}`)
  const search = $pinia._s.get('nodeDef').nodeSearchService
  const find = (name) => (search ? search.searchNode(name, [], { limit: 64 }).map((n) => n.name) : [])
  const unfound = []
  for (const [id, texts] of Object.entries(files)) {
    const type = window.LiteGraph.registered_node_types[id]
    if (!type) {
      different.push(`${id} is not registered`)
      continue
    }
    same(`${id} title`, type.title, texts.display_name)
    same(`${id} description`, $pinia._s.get('nodeDef').nodeDefsByName[id].description, texts.description)
    const node = window.LiteGraph.createNode(id)
    for (const input of node.inputs ?? []) {
      const should = texts.inputs[input.name]
      if (should) same(`${id} ${input.name}`, input.localized_name ?? input.label ?? input.name, should.name)
    }
    for (const widget of node.widgets ?? []) {
      const should = texts.inputs[widget.name]
      if (should) same(`${id} ${widget.name}`, widget.label ?? widget.name, should.name)
    }
    // an output whose name is a type of the host, such as MODEL, keeps the host's name
    node.outputs.forEach((output, i) => output.name === output.type || same(`${id} output ${i}`, output.localized_name ?? output.name, texts.outputs[i].name))
    // the older front end translates tooltips this way; the newer one shows them as they are
    if (shown === language)
      for (const side of ['inputs', 'outputs'])
        for (const [socket, { tooltip }] of Object.entries(texts[side]))
          if (tooltip) same(`${id} ${socket} tooltip`, $t(`nodeDefs.${id}.${side}.${socket.replaceAll('.', '_')}.tooltip`), tooltip)
    // the host's search reads the first 30 characters or so of a name
    for (const name of new Set([english[id].display_name, texts.display_name.replace(/ \(.*\)$/, '').replace(/^(.{1,28})( .*)?$/, '$1')]))
      if (!find(name).slice(0, 8).includes(id)) unfound.push(`${name}: ${find(name).slice(0, 3)}`)
  }
  const category = window.LiteGraph.registered_node_types.EquipoiseLoadADP?.category
  return { shown, nodes: Object.keys(files).length, category, different, unfound }
}

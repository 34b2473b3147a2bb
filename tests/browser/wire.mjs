// Build a graph by hand in the front end of a running ComfyUI: add a node from the search box, wire it with the mouse, run it, reload.
//
//   node wire.mjs PLAYWRIGHT_FOLDER CHROMIUM URL PICTURE START.json WISHES.json
//
// START.json is the graph without the node. WISHES.json: {"search": words to type, "add": node type, "at": [x, y] on the graph,
// "widgets": {name: value}, "links": [[type of source, output name, type of sink, input name], ...]}. Prints one JSON object: the links of the
// graph, seconds of the run and the pictures shown, what differs after a reload, and errors of the console.
import { readFileSync } from 'node:fs'
import { pause } from './chromium.mjs'
import { open, pictures, run, visit } from './front_end.mjs'

const [playwright, chromium, url, picture, start, wishes] = process.argv.slice(2)
const graph = JSON.parse(readFileSync(start)), wish = JSON.parse(readFileSync(wishes))
const { page, takeErrors, close } = await open(url, playwright, chromium, { settings: { 'Comfy.Graph.CanvasMenu': false } })

// Convert a point of the graph to a point on the screen.
const onScreen = (point) =>
  page.evaluate(([x, y]) => {
    const { canvas, ds } = window.app.canvas, box = canvas.getBoundingClientRect()
    return [(x + ds.offset[0]) * ds.scale + box.left, (y + ds.offset[1]) * ds.scale + box.top]
  }, point)
const slot = (type, name, input) =>
  page.evaluate(
    ([type, name, input]) => {
      const node = window.app.graph._nodes.find((one) => one.type === type)
      const index = input ? node.findInputSlot(name) : node.findOutputSlot(name)
      if (index < 0) throw new Error(`${type} has no ${input ? 'input' : 'output'} '${name}'`)
      return [...node.getConnectionPos(input, index)]
    },
    [type, name, input]
  )
const links = () =>
  page.evaluate(() => {
    const { graph } = window.app
    return graph._nodes.flatMap((node) =>
      node.inputs.flatMap((into) => {
        const link = into.link == null ? null : graph.getLink(into.link)
        const source = link && graph.getNodeById(link.origin_id)
        return link ? [[source.type, source.outputs[link.origin_slot].name, node.type, into.name]] : []
      })
    )
  })
// Describe the graph as it is saved and queued, without sizes, because previews change them.
const contents = () =>
  page.evaluate(async () => {
    const { nodes, links, groups } = window.app.graph.serialize()
    const parts = nodes.map(({ id, type, title, pos, widgets_values, inputs, outputs, properties, mode, flags }) =>
      JSON.stringify([id, type, title, [...pos].map(Math.round), widgets_values ?? [], inputs, outputs, properties, mode, flags])
    )
    return [...parts.sort(), JSON.stringify(links), JSON.stringify(groups), JSON.stringify((await window.app.graphToPrompt()).output)]
  })

try {
  await visit(page, url)
  await pause(page, 2000)
  await page.evaluate((graph) => window.app.loadGraphData(graph, true, true, 'by_hand'), graph)
  await pause(page, 1000)
  await page.evaluate(() => {
    Object.assign(window.app.canvas.ds, { scale: 0.8, offset: [150, 100] })
    window.app.canvas.setDirty(true, true)
  })
  const [x, y] = await onScreen(wish.at)
  await page.mouse.dblclick(x, y)
  const field = page.locator('input:focus')
  await field.waitFor()
  await page.keyboard.type(wish.search, { delay: 20 })
  await pause(page, 1500)
  await page.screenshot({ path: picture.replace('.png', '_search.png') })
  await page.keyboard.press('Enter')
  await pause(page, 500)
  if (!(await page.evaluate((type) => window.app.graph._nodes.some((n) => n.type === type), wish.add))) throw new Error(`'${wish.search}' and Enter did not add a ${wish.add}`)
  await page.mouse.move(x + 5, y + 5)
  await page.mouse.click(x, y) // in newer front ends the node follows the pointer until a click
  await pause(page, 500)
  await page.screenshot({ path: picture.replace('.png', '_placed.png') })
  await page.evaluate(
    ({ add, widgets }) => {
      const node = window.app.graph._nodes.find((n) => n.type === add)
      for (const [name, value] of Object.entries(widgets)) node.widgets.find((w) => w.name === name).value = value
    },
    wish
  )
  for (const [source, out, sink, into] of wish.links) {
    const from = await onScreen(await slot(source, out, false)), to = await onScreen(await slot(sink, into, true))
    await page.mouse.move(...from)
    await page.mouse.down()
    await page.mouse.move((from[0] + to[0]) / 2, (from[1] + to[1]) / 2, { steps: 4 })
    await page.mouse.move(...to, { steps: 4 })
    await page.mouse.up()
    await pause(page, 150)
  }
  await page.screenshot({ path: picture })
  const wired = await links()
  if (wired.length < wish.links.length) throw new Error(`only these links came about: ${JSON.stringify(wired)}`)
  const ran = await run(page)
  const shown = await pictures(page)
  await pause(page, 1500) // the front end keeps the graph a moment after it changed
  await page.screenshot({ path: picture })
  const before = await contents()
  const first = takeErrors()
  await page.reload()
  await page.waitForFunction(() => window.app?.isGraphReady)
  await page.waitForFunction((count) => window.app.graph._nodes.length === count, graph.nodes.length + 1)
  await pause(page, 1000)
  const after = await contents()
  console.log(JSON.stringify({ wired, ...ran, pictures: shown, changed: before.flatMap((part, i) => (part === after[i] ? [] : [[part, after[i]]])), ...first, again: takeErrors().errors }))
} finally {
  await page.screenshot({ path: picture.replace('.png', '_end.png') })
  await close()
}

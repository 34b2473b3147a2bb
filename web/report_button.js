// Fairness Report: a button below the summary opens the whole report, an HTML file, in a new tab.
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'
import { addExtra, make, useStyles } from './extra_widget.js'
import { findNode, isOpen } from './graph.js'
import { text } from './texts.js'

const NODE = 'EquipoiseFairnessReport'
const links = new WeakMap() // node -> its link
const latest = new Map() // workflow and node id -> [node id, report], for when the tab is opened again
const MOST = 64 // nodes whose report is kept

app.registerExtension({
  name: 'equipoise.ReportButton',
  setup() {
    useStyles('./equipoise.css')
    api.addEventListener('executed', ({ detail }) => {
      const report = detail?.output?.equipoise_report?.[0]
      if (!report) return
      const id = detail.display_node ?? detail.node
      latest.set(`${report.workflow} ${id}`, [id, report])
      if (latest.size > MOST) latest.delete(latest.keys().next().value)
      show(id, report)
    })
  },
  // A tab that is opened again gets new nodes.
  afterConfigureGraph() {
    for (const [id, report] of latest.values()) if (report.workflow) show(id, report)
  }
})

/** Point the button of a node to a report, if the workflow that was queued is open. */
function show(id, { name, workflow }) {
  const node = isOpen(workflow) ? findNode(id) : null
  if (!node || (node.comfyClass ?? node.type) !== NODE) return
  if (!links.has(node)) {
    const link = make('a', 'equipoise-open', { target: '_blank', rel: 'noopener' }, text('report.open', 'Open the whole report'))
    const element = make('div', 'equipoise-extra', {}, make('div', 'equipoise-bar', {}, link))
    const fit = addExtra(node, 'equipoise_report', element, () => text('report.open', 'Open the whole report'))
    links.set(node, { link, fit })
  }
  const { link, fit } = links.get(node)
  link.href = api.apiURL(`/equipoise/report?${new URLSearchParams({ name })}`)
  link.title = name
  fit()
}

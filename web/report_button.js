// Fairness Report: a button below the summary opens the whole report, an HTML file, in a new tab.
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'
import { addExtra, make, useStyles } from './extra_widget.js'
import { TabOutputs } from './tab_outputs.js'
import { text } from './texts.js'

const NODE = 'EquipoiseFairnessReport'
const links = new WeakMap() // node -> its link
const reports = new TabOutputs([NODE], show)

app.registerExtension({
  name: 'equipoise.ReportButton',
  setup() {
    useStyles('./equipoise.css')
    api.addEventListener('executed', ({ detail }) => {
      const report = detail?.output?.equipoise_report?.[0]
      if (report) reports.take(detail.display_node ?? detail.node, { prompt: detail.prompt_id, workflow: report.workflow }, report)
    })
  }
})

/** Point the button of a node to a report. */
function show(node, { name }) {
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

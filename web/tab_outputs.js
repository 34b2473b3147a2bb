// What the server sends for nodes: drawn on the tab that queued the prompt, and again when this tab comes back.
//
// Ids do not tell tabs apart. A template that was opened twice has one workflow id in both tabs, and an output from the cache names the
// workflow that computed it. So a tab is noted when it queues a prompt.
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'
import { findNode } from './graph.js'

const LATE = 5000 // milliseconds that messages about a prompt may come after its end
const tabs = new Map() // prompt id -> the tab that queued it
const all = new Set() // every TabOutputs, to draw again
let answers = Promise.resolve() // settled when the server has named every prompt that was sent to it
const left = [] // the tab that was active when a graph began to load, for each graph that loads now

app.registerExtension({
  name: 'equipoise.TabOutputs',
  setup() {
    const { queuePrompt } = api
    const { loadGraphData } = app
    // The front end has no event that names both a prompt and its tab, and none for the end of a change of tabs.
    api.queuePrompt = function (...sent) {
      const tab = activeTab()
      const answer = queuePrompt.apply(this, sent)
      answers = Promise.allSettled([answers, answer.then(({ prompt_id: prompt }) => tabs.set(prompt, tab))]).then(() => {})
      return answer
    }
    app.loadGraphData = async function (...graph) {
      left.push(activeTab())
      try {
        return await loadGraphData.apply(this, graph)
      } finally {
        left.pop()
        for (const outputs of all) outputs.drawAll() // the nodes are new
      }
    }
    for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
      api.addEventListener(kind, ({ detail }) => setTimeout(() => tabs.delete(detail?.prompt_id), LATE))
  }
})

/** The latest output of each node of some types. */
export class TabOutputs {
  /** `types` of nodes; `show(node, output)` draws an output on a node. */
  constructor(types, show) {
    this.types = types
    this.show = show
    this.kept = new WeakMap() // tab -> node id -> output
    this.waiting = new Set() // ids of nodes whose output is not drawn yet
    all.add(this)
  }

  /** Keep an output and draw it. `prompt` and `workflow` are the ids of what was queued; undefined output: the node has none any more. */
  async take(id, { prompt, workflow }, output) {
    if (!tabs.has(prompt)) await answers
    const tab = tabs.get(prompt) ?? tabOfWorkflow(workflow)
    if (!tab || (output === undefined && !this.of(tab).has(id))) return
    this.of(tab).set(id, output)
    if (tab !== activeTab()) return
    this.waiting.add(id)
    if (this.waiting.size === 1) requestAnimationFrame(() => this.drawWaiting()) // a busy page draws only the latest
  }

  /** Change the kept outputs for which `change` returns another one, and draw them. */
  update(change) {
    for (const tab of openTabs()) for (const [id, output] of this.of(tab)) this.of(tab).set(id, change(output))
    this.drawAll()
  }

  drawWaiting() {
    for (const id of this.waiting) this.draw(id)
    this.waiting.clear()
  }

  /** Draw all outputs of the active tab. */
  drawAll() {
    for (const id of this.of(activeTab()).keys()) this.draw(id)
  }

  draw(id) {
    const outputs = this.of(activeTab())
    if (!outputs.has(id) || left.includes(activeTab())) return // while a graph loads, its nodes are there before its tab is active
    const node = findNode(id)
    if (node && this.types.includes(node.comfyClass ?? node.type)) this.show(node, outputs.get(id))
  }

  /** Get the outputs of one tab. */
  of(tab) {
    if (!this.kept.has(tab)) this.kept.set(tab, new Map())
    return this.kept.get(tab)
  }
}

/** Get the active tab, the front end's object of a workflow; the front end itself if it has no tabs. */
function activeTab() {
  return app.extensionManager?.workflow?.activeWorkflow ?? app
}

function openTabs() {
  return [...(app.extensionManager?.workflow?.openWorkflows ?? [app])]
}

/** Find the tab of a prompt that was queued before the page was loaded: by the workflow's id, or the active tab if it has none. */
function tabOfWorkflow(workflow) {
  if (!workflow || (app.rootGraph ?? app.graph)?.id === workflow) return activeTab()
  return openTabs().find((tab) => (tab.activeState ?? tab.initialState)?.id === workflow)
}

// Feature Atlas: a button for every feature that is shown, which sends it to Bias Feature Steer: the attribute, the class, and the feature's
// number in the field `only`. With Shift the number is added to those that are there, or taken out again.
import { app } from '../../scripts/app.js'
import { addExtra, make, useStyles } from './extra_widget.js'
import { text } from './texts.js'

const ATLAS = 'EquipoiseFeatureAtlas'
const STEER = 'EquipoiseBiasFeatureSteer'

app.registerExtension({
  name: 'equipoise.FeatureAtlas',
  setup: () => useStyles('./editors.css'),
  nodeCreated(node) {
    if ((node.comfyClass ?? node.type) !== ATLAS || !node.addDOMWidget) return
    let shown = null
    const executed = node.onExecuted
    node.onExecuted = function (output, ...rest) {
      const result = executed?.call(this, output, ...rest)
      const features = output?.equipoise_features
      if (Array.isArray(features)) (shown ??= new Buttons(node)).show(features)
      return result
    }
  }
})

class Buttons {
  constructor(node) {
    this.node = node
    this.content = make('div', 'equipoise-editor equipoise-features', { role: 'group' })
    for (const kind of ['pointerdown', 'mousedown', 'dblclick'])
      this.content.addEventListener(kind, (event) => event.target.closest('button') && event.stopPropagation())
    this.content.addEventListener('keydown', (event) => event.ctrlKey || event.metaKey || event.stopPropagation())
    this.fit = addExtra(node, 'equipoise_features', make('div', 'equipoise-extra', {}, this.content))
  }

  show(features) {
    const title = text('atlas.send', 'Send to Bias Feature Steer')
    this.content.setAttribute('aria-label', title)
    const buttons = features.map((found) => {
      const button = make('button', '', { type: 'button', 'data-feature': found.feature }, `#${found.feature} ${found.class_name}`)
      button.title = text('atlas.send_tip', '{title}: attribute {attribute}, class {class_name}, only this feature. With Shift: add it, or take it out again', { title, ...found })
      button.setAttribute('aria-label', `${button.textContent}. ${button.title}`)
      button.addEventListener('click', (event) => send(this.node, found, event.shiftKey))
      return button
    })
    this.content.replaceChildren(make('div', 'equipoise-note', {}, title), ...buttons)
    this.fit()
  }
}

/** Write a feature into a steering node of the same graph, alone or with those that are there, and say what happened. */
function send(atlas, found, along) {
  const steers = atlas.graph._nodes.filter((node) => node.type === STEER)
  const steer = chosenOne(atlas, steers)
  if (!steer) {
    return steers.length
      ? toast('warn', text('atlas.many', 'There are {count} Bias Feature Steer nodes here: select the one that is meant, and click again.', { count: steers.length }))
      : toast('warn', text('atlas.none', 'There is no Bias Feature Steer here: add one, and click again.'))
  }
  const only = along ? toggled(steer, found) : [found.feature]
  const wanted = { attribute: found.attribute, class_name: found.class_name, only: only.join(', ') }
  const linked = Object.keys(wanted).filter((name) => steer.inputs?.some((input) => input.widget?.name === name && input.link != null))
  if (linked.length) {
    return toast('warn', text('atlas.linked', '{title} #{id} takes {names} from a link: cut it, and click again.', { ...named(steer), names: linked.join(', ') }))
  }
  for (const [name, value] of Object.entries(wanted)) {
    const widget = steer.widgets.find((w) => w.name === name)
    widget.value = value
    widget.callback?.(value, app.canvas, steer)
  }
  steer.graph.setDirtyCanvas(true, true)
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker
  if (tracker?.captureCanvasState) tracker.captureCanvasState()
  else tracker?.checkState?.()
  const values = { ...named(steer), ...found, features: only.map((number) => `#${number}`).join(', ') }
  const done = only.length
    ? text('atlas.sent', '{title} #{id} now turns only {features} of {attribute}: {class_name}.', values)
    : text('atlas.sent_none', '{title} #{id} no longer turns single features; its field "features" says how many.', values)
  const target = steer.inputs?.find((input) => input.name === 'target')?.link != null
  toast(target ? 'warn' : 'success', target ? `${done} ${text('atlas.target', 'Its target is connected, so who goes to which class is not changed.')}` : done)
}

/** The numbers in a steering node's field `only`, with one more, or without it where it is among them; those of another attribute are dropped. */
function toggled(steer, found) {
  const value = (name) => String(steer.widgets.find((w) => w.name === name).value)
  const there = value('attribute') === found.attribute ? (value('only').match(/\d+/g) ?? []).map(Number) : []
  return there.includes(found.feature) ? there.filter((number) => number !== found.feature) : [...there, found.feature]
}

/** The steering node that is meant: the selected one, else the one with the same bias features, else the only one. */
function chosenOne(atlas, steers) {
  const files = (node) => node.getInputNode?.(node.inputs?.findIndex((i) => i.name === 'bias_features') ?? -1)
  const selected = steers.filter((node) => app.canvas.selected_nodes?.[node.id] === node)
  const own = files(atlas)
  const same = own ? steers.filter((node) => files(node) === own) : []
  return [selected, same, steers].find((list) => list.length === 1)?.[0]
}

function named(node) {
  return { title: node.title, id: node.id }
}

function toast(severity, detail) {
  app.extensionManager?.toast?.add({ severity, summary: 'Equipoise', detail, life: 8000 })
}

// Feature Atlas: a button for each feature that it shows. The button writes the feature into a Bias Feature Steer: its attribute, its class,
// and its number in the field `only`. With Shift it adds the number to the field, or removes it.
import { app } from '../../scripts/app.js'
import { addExtra, make, useStyles } from './extra_widget.js'
import { recordForUndo, setField } from './graph.js'
import { text } from './texts.js'

const ATLAS = 'EquipoiseFeatureAtlas'
const STEER = 'EquipoiseBiasFeatureSteer'

app.registerExtension({
  name: 'equipoise.FeatureAtlas',
  setup: () => useStyles('./editors.css'),
  nodeCreated(node) {
    if ((node.comfyClass ?? node.type) !== ATLAS || !node.addDOMWidget) return
    let buttons = null
    const executed = node.onExecuted
    node.onExecuted = function (output, ...rest) {
      const result = executed?.call(this, output, ...rest)
      const features = output?.equipoise_features
      if (Array.isArray(features)) (buttons ??= new Buttons(node)).show(features)
      return result
    }
  }
})

/** Buttons of one atlas. A feature is { feature: its number, attribute, class_name }. */
class Buttons {
  constructor(node) {
    this.node = node
    this.content = make('div', 'equipoise-editor equipoise-features', { role: 'group' })
    for (const kind of ['pointerdown', 'mousedown', 'dblclick'])
      this.content.addEventListener(kind, (event) => event.target.closest('button') && event.stopPropagation())
    this.content.addEventListener('keydown', (event) => event.ctrlKey || event.metaKey || event.stopPropagation())
    this.fit = addExtra(node, 'equipoise_features', make('div', 'equipoise-extra', {}, this.content), () => text('atlas.send', 'Send to Bias Feature Steer'))
  }

  show(features) {
    const title = text('atlas.send', 'Send to Bias Feature Steer')
    this.content.setAttribute('aria-label', title)
    this.content.replaceChildren(make('div', 'equipoise-note', {}, title), ...features.map((feature) => this.button(feature, title)))
    this.fit()
  }

  button(feature, title) {
    const button = make('button', '', { type: 'button', 'data-feature': feature.feature }, `#${feature.feature} ${feature.class_name}`)
    button.title = text(
      'atlas.send_tip',
      '{title}. The node then uses only this feature, for attribute {attribute} and class {class_name}. Hold Shift to add the feature to its list, or to remove it.',
      { title, ...feature }
    )
    button.setAttribute('aria-label', `${button.textContent}. ${button.title}`)
    button.addEventListener('click', (event) => send(this.node, feature, event.shiftKey))
    return button
  }
}

/** Write a feature into a steering node of the same graph, alone or (`add`) into its list, and tell the user. */
function send(atlas, feature, add) {
  const steers = atlas.graph._nodes.filter((node) => node.type === STEER)
  const steer = chooseSteer(atlas, steers)
  if (!steer) return toast('warn', noSteer(steers.length))
  const only = add ? toggled(steer, feature) : [feature.feature]
  const values = { attribute: feature.attribute, class_name: feature.class_name, only: only.join(', ') }
  const linked = Object.keys(values).filter((name) => steer.inputs?.some((input) => input.widget?.name === name && input.link != null))
  if (linked.length) {
    return toast(
      'warn',
      text('atlas.linked', '{title} #{id} takes these inputs from links: {names}. Remove the links, then click again.', {
        ...label(steer),
        names: linked.join(', ')
      })
    )
  }
  for (const [name, value] of Object.entries(values)) setField(steer, field(steer, name), value)
  steer.graph.setDirtyCanvas(true, true)
  recordForUndo()
  confirmSent(steer, feature, only)
}

/** Say why no steering node was chosen. */
function noSteer(count) {
  return count
    ? text('atlas.many', 'This graph has {count} Bias Feature Steer nodes. Select one of them, then click again.', { count })
    : text('atlas.none', 'This graph has no Bias Feature Steer node. Add one, then click again.')
}

/** Tell the user what a steering node does now. */
function confirmSent(steer, feature, only) {
  const values = { ...label(steer), ...feature, features: only.map((number) => `#${number}`).join(', ') }
  const done = only.length
    ? text('atlas.sent', '{title} #{id} now uses only {features} for {attribute}: {class_name}.', values)
    : text('atlas.sent_none', '{title} #{id} no longer has a list of features. Its field "features" sets how many it uses.', values)
  const hasTarget = steer.inputs?.find((input) => input.name === 'target')?.link != null
  if (!hasTarget) return toast('success', done)
  toast('warn', `${done} ${text('atlas.target', 'A target is connected to it. The target still decides which class each image gets.')}`)
}

/** Add a feature's number to those in a steering node's field `only`, or remove it; numbers of another attribute are dropped. */
function toggled(steer, feature) {
  const value = (name) => String(field(steer, name).value)
  const numbers = value('attribute') === feature.attribute ? (value('only').match(/\d+/g) ?? []).map(Number) : []
  return numbers.includes(feature.feature) ? numbers.filter((number) => number !== feature.feature) : [...numbers, feature.feature]
}

/** Choose the steering node: the selected one, else the one with the same bias features, else the only one. */
function chooseSteer(atlas, steers) {
  const files = (node) => node.getInputNode?.(node.inputs?.findIndex((i) => i.name === 'bias_features') ?? -1)
  const selected = steers.filter((node) => app.canvas.selected_nodes?.[node.id] === node)
  const own = files(atlas)
  const same = own ? steers.filter((node) => files(node) === own) : []
  return [selected, same, steers].find((list) => list.length === 1)?.[0]
}

function field(node, name) {
  return node.widgets.find((widget) => widget.name === name)
}

function label(node) {
  return { title: node.title, id: node.id }
}

function toast(severity, detail) {
  app.extensionManager?.toast?.add({ severity, summary: 'Equipoise', detail, life: 8000 })
}

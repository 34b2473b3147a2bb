// Which attributes and classes a target node is checked against: the file chosen in the loader behind its sockets, asked of the server.
import { api } from '../../scripts/api.js'

/** Sockets in the order in which the target nodes look at them. */
export const SOCKETS = ['adp', 'classifier', 'bias_features']
const LOADERS = {
  EquipoiseLoadADP: ['adp', 'adp_name'],
  EquipoiseLoadAttributeClassifier: ['classifier', 'classifier_name'],
  EquipoiseLoadBiasFeatures: ['bias_features', 'bias_features_name']
}
const BYPASSED = 4
const MUTED = 2
const SUBGRAPH_INPUT = -10
const DEEPEST = 64

/**
 * What the first connected socket of a target node comes from: null where none is connected, else { kind, name, exact }. `name` is the
 * chosen file, null where it cannot be known before a run (a model that is being trained); `exact` is false where a node between may add
 * to the file's attributes.
 */
export function sourceOf(node) {
  for (const socket of SOCKETS) {
    const found = behind(node, socket)
    if (found) return { kind: socket, name: null, exact: false, ...found.file }
  }
  return null
}

/** The node that a socket of `node` comes from, through reroutes, subgraphs and bypassed nodes; null where nothing is connected. */
function behind(node, socket) {
  const slot = node.inputs?.findIndex((input) => input.name === socket) ?? -1
  let at = slot < 0 ? null : origin(node.graph, node.inputs[slot].link)
  let exact = true
  for (let i = 0; at && i < DEEPEST; i++) {
    const loader = LOADERS[at.node.type]
    if (at.node.mode === MUTED) return null
    if (loader && at.node.mode !== BYPASSED) return { file: { kind: loader[0], name: chosen(at.node, loader[1]), exact } }
    const type = at.node.outputs?.[at.slot]?.type
    const same = at.node.inputs?.find((input) => input.type === type && input.link != null)
    const only = passes(at.node) ? at.node.inputs?.find((input) => input.link != null) : null
    const inside = at.node.subgraph && at.node.mode !== BYPASSED
    if (inside) {
      at = origin(at.node.subgraph, at.node.subgraph.outputs?.[at.slot]?.linkIds?.[0])
    } else if (only || same) {
      exact &&= !!only || at.node.mode === BYPASSED
      at = origin(at.node.graph, (only ?? same).link)
    } else return at.node.mode === BYPASSED || passes(at.node) ? null : { file: {} }
  }
  return null
}

/** Whether a node hands on what it is given: reroutes of the front end and of other packs. */
function passes(node) {
  return /reroute/i.test(node.type ?? '') || (node.isVirtualNode && node.inputs?.length === 1 && node.outputs?.length === 1)
}

/** { node, slot } at the other end of a link; a subgraph's own input leads out to the node that stands for the subgraph. */
function origin(graph, id) {
  for (let i = 0; graph && id != null && i < DEEPEST; i++) {
    const link = graph.getLink?.(id) ?? graph.links?.get?.(id) ?? graph.links?.[id]
    if (!link) return null
    if (Number(link.origin_id) !== SUBGRAPH_INPUT) { // a text in newer front ends
      const node = graph.getNodeById(link.origin_id)
      return node ? { node, slot: link.origin_slot } : null
    }
    const outer = instances(graph)
    if (outer.length !== 1) return null // several of one subgraph may be given different files
    id = outer[0].inputs?.[link.origin_slot]?.link
    graph = outer[0].graph
  }
  return null
}

/** Nodes that stand for a subgraph, anywhere in the workflow. */
function instances(subgraph) {
  const root = subgraph.rootGraph ?? subgraph
  const graphs = [root, ...(root.subgraphs?.values?.() ?? [])]
  return graphs.flatMap((graph) => (graph._nodes ?? []).filter((node) => node.subgraph === subgraph))
}

/** What a loader's list shows; null where it is fed by a link whose value is not in the front end. */
function chosen(node, name) {
  const input = node.inputs?.find((slot) => slot.widget?.name === name && slot.link != null)
  if (!input) return node.widgets?.find((widget) => widget.name === name)?.value ?? null
  const from = origin(node.graph, input.link)?.node
  return from?.type === 'PrimitiveNode' ? (from.widgets?.[0]?.value ?? null) : null
}

const answers = new Map()

/** Forget what was asked: files may have been written since. */
export function forgetClasses() {
  answers.clear()
}

/**
 * Attributes and classes of a chosen file: { attributes } or { error }, asked of the server once; null while the answer is awaited, and
 * `ready` is called when it is there.
 */
export function classesOf(kind, name, ready) {
  const key = `${kind}/${name}`
  if (!answers.has(key)) {
    answers.set(key, null)
    ask(kind, name).then((answer) => {
      answers.set(key, answer)
      ready()
    })
  }
  return answers.get(key)
}

async function ask(kind, name) {
  try {
    const answer = await api.fetchApi(`/equipoise/classes?kind=${encodeURIComponent(kind)}&name=${encodeURIComponent(name)}`)
    const said = await answer.json()
    return said.attributes || said.error ? said : { error: `HTTP ${answer.status}` }
  } catch (error) {
    return { error: String(error) }
  }
}

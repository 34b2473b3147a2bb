// Nodes of the open workflow: find one by the server's id, write its fields, and tell the front end's undo.
import { app } from '../../scripts/app.js'

/**
 * Find a node by the id that the server uses for it; undefined if there is none.
 *
 * Ids are "4", "7:4" for a node in a subgraph, and "4.0.1" for a node that node 4 expanded to, which is shown on node 4.
 */
export function findNode(id) {
  let graph = app.rootGraph ?? app.graph
  let node
  for (const part of String(id).split('.')[0].split(':')) {
    node = graph?.getNodeById?.(part) ?? graph?.getNodeById?.(Number(part))
    graph = node?.subgraph
  }
  return node ?? undefined
}

/** Set a field of a node as if the user had typed the value. */
export function setField(node, widget, value) {
  widget.value = value
  widget.callback?.(value, app.canvas, node)
}

/** Let the front end's undo record what was changed. */
export function recordForUndo() {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker
  if (tracker?.captureCanvasState) tracker.captureCanvasState()
  else tracker?.checkState?.()
}

// Pictures of the help pages: the side panel is too narrow for them, so a click opens a picture in full size over the page.
import { app } from '../../scripts/app.js'
import { make, useStyles } from './extra_widget.js'
import { text } from './texts.js'

const PICTURE = 'img[src*="/docs/img/Equipoise"]'

app.registerExtension({
  name: 'equipoise.HelpPictures',
  setup() {
    useStyles('./equipoise.css')
    document.addEventListener('click', (event) => {
      const picture = event.target?.closest?.(PICTURE)
      if (picture && !picture.closest('.equipoise-full')) show(picture)
    })
  }
})

/** Show a picture in full size until the user clicks it or presses a key. */
function show({ src, alt }) {
  const dialog = make('dialog', 'equipoise-full', { 'aria-label': alt }, make('img', '', { src, alt }))
  dialog.title = text('help.close', 'Click to close')
  dialog.addEventListener('click', () => dialog.close())
  dialog.addEventListener('close', () => dialog.remove())
  document.body.append(dialog)
  dialog.showModal()
}

// The list of layers: which are shown, how strongly, in which colours.
export function showLayers(section, slide, viewer) {
}

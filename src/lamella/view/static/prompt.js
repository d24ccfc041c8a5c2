// Boxes and clicks for a promptable model on the region in view.
export function prompting(section, slide, viewer, annotations) {
}

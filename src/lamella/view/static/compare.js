// Two looks at one slide: side by side, or under a handle that swipes from one to the other.
export function compareLayers(section, slide, viewer) {
}

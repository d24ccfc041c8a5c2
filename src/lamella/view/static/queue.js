// The places that a person is asked to look at, one after the other.
export async function showQueue(section, slide, viewer) {
}

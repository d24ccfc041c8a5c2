// Runs before the third-party scripts, so that they work under `default-src 'self'`.
// @pixi/unsafe-eval leaves its method here; hatch_build.py makes Annotorious' own PixiJS take it.
globalThis.PIXI = {ShaderSystem: class {}, utils: {deprecation() {}}};
// The policy refuses style attributes that are set as text, and allows the same by way of the style object.
const setPlain = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name, value) {
  if (name === "style") this.style.cssText = value;
  else setPlain.call(this, name, value);
};
// OpenSeadragon adds a style sheet unless it finds one so marked. The policy refuses even an empty one, so the mark is
// an element of that name which is none.
const mark = document.createElementNS("urn:lamella", "style");
mark.setAttribute("data-openseadragon-mobile-css", "");
document.head.append(mark);

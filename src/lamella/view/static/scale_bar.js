// How long a scale bar is, and what stands on it. Exported pages, which cannot load modules, use it, too.
// It is 1, 2 or 5 times a power of ten, and at most 160 pixels.
globalThis.scaleBar = (bar, pxPerUm) => {
  const longest = 160 / pxPerUm * 1.000001, decade = 10 ** Math.floor(Math.log10(longest));
  const um = Number((decade * [5, 2, 1].find((step) => step * decade <= longest)).toPrecision(1));
  bar.style.width = `${um * pxPerUm}px`;
  bar.textContent = um >= 1000 ? `${um / 1000} mm` : `${um} µm`;
  return um;
};

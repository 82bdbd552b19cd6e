"""Scripts that look at a page as it is drawn: text too faint to be read, controls without a name."""

# Relative luminance and contrast by WCAG 2.2's definitions. A canvas turns every notation of a colour into bytes.
FAINT = """() => {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", {
    willReadFrequently: true });
  const bytes = (colour) => { context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data]; };
  const over = ([r, g, b, a], under) => [r, g, b].map((v, n) => (v * a + under[n] * (255 - a)) / 255);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => { const [r, g, b] = rgb.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { const layers = []; for (let p = e; p; p = p.parentElement) {
      const colour = bytes(getComputedStyle(p).backgroundColor); if (colour[3]) layers.push(colour);
      if (colour[3] === 255) break; }
    return layers.reverse().reduce((under, colour) => over(colour, under), [255, 255, 255]); };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const box = e.getBoundingClientRect();
    if (!own || !e.checkVisibility() || !box.width || box.width < 2 || e.closest("svg, [disabled], noscript")) continue;
    const style = getComputedStyle(e), under = ground(e);
    const [a, b] = [light(over(bytes(style.color), under)), light(under)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < (large ? 3 : 4.5)) {
      found.push(`${e.tagName}.${e.className} ${contrast.toFixed(2)} ${e.textContent.trim().slice(0, 40)}`); }
  }
  return found; }"""

NAMELESS = """() => [...document.querySelectorAll(
    "a, button, input:not([type=hidden]), select, textarea, img, svg[role=img]")]
  .filter((e) => e.checkVisibility() && !e.closest("[aria-hidden=true]")).filter((e) => {
    if (e.tagName === "IMG") return !e.hasAttribute("alt");
    if (e.querySelector("img[alt]:not([alt=''])")) return false;
    const label = e.labels && [...e.labels].some((l) => l.textContent.trim());
    return !(label || e.getAttribute("aria-label") || e.getAttribute("title") || (e.textContent || "").trim()); })
  .map((e) => e.outerHTML.slice(0, 120))"""

// What is wrong with how the page looks, as told by the browser's own layout. Returns { texts, problems }.
(({ contrast, size }) => {
  const parse = (colour) => {
    const [, kind, inner] = /^(rgba?)\(([^)]*)\)$/.exec(colour) || [];
    if (!kind) throw new Error(`cannot read the colour ${colour}`);
    const [red, green, blue, alpha = 1] = inner.split(",").map(Number);
    return [red, green, blue, alpha];
  };
  const over = ([r, g, b, a], [red, green, blue]) => [r * a + red * (1 - a), g * a + green * (1 - a), b * a + blue * (1 - a)];
  const luminance = (colour) => {
    const [red, green, blue] = colour
      .map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const lineage = (element) => (element ? [...lineage(element.parentElement), element] : []);
  const seen = (element) => element.checkVisibility() && lineage(element).every((one) => getComputedStyle(one).clipPath === "none");
  const problems = [];
  const texts = [];

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const text = node.textContent.trim();
    const element = node.parentElement;
    if (!text || !seen(element)) continue;
    texts.push(text);
    const style = getComputedStyle(element);
    let back = [255, 255, 255];
    let opacity = 1;
    for (const ancestor of lineage(element)) {
      const { backgroundColor, opacity: own, filter } = getComputedStyle(ancestor);
      back = over(parse(backgroundColor), back);
      opacity *= Number(own);
      if (filter !== "none") problems.push(`${text}: drawn through a filter`);
    }
    const [red, green, blue, alpha] = parse(style.color);
    const [light, dark] = [luminance(over([red, green, blue, alpha * opacity], back)), luminance(back)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < contrast) problems.push(`${text}: a contrast of ${ratio.toFixed(2)}`);
    if (parseFloat(style.fontSize) < size) problems.push(`${text}: ${style.fontSize}`);
  }

  const width = document.documentElement.clientWidth;
  if (document.scrollingElement.scrollWidth > width) problems.push(`the page is ${document.scrollingElement.scrollWidth} wide`);
  for (const element of document.body.querySelectorAll("*")) {
    if (!seen(element)) continue;
    const name = `${element.tagName} ${element.textContent.trim().slice(0, 40)}`;
    const { left, right } = element.getBoundingClientRect();
    if (left < 0 || right > width + 0.5) problems.push(`${name}: from ${left} to ${right} of ${width}`);
    if (element.scrollWidth > element.clientWidth + 1 && element.clientWidth) problems.push(`${name}: its content is wider than it`);
  }
  return { texts, problems };
})

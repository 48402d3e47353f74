// A pretrained prior in the page.

export async function openPrior() { return {}; }

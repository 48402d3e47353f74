// Starts the page: over http from its modules, from disk (where browsers load no modules) from offline.js.
"use strict";
(() => {
  const begun = performance.now();
  const say = (error) => {
    document.getElementById("notice").textContent = `The page could not start: ${error.message ?? error}`;
    console.error(error);
  };
  const script = (name) => new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.onload = resolve;
    element.onerror = () => reject(new Error(`${name} is missing from the folder; export the avatar again`));
    element.src = name;
    document.head.append(element);
  });
  const unpacked = (base64) => {
    const packed = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  // Modules stand in an order in which each imports only earlier ones.
  const linked = async () => {
    await script("offline.js");
    const urls = {};
    for (const [name, packed] of Object.entries(self.HEADSTART_MODULES)) {
      const source = (await unpacked(packed)).replace(/from "\.\/([\w.-]+)"/g, (_, other) => `from "${urls[other]}"`);
      urls[name] = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    }
    return urls["main.js"];
  };
  const main = async () => import(location.protocol === "file:" ? await linked() : "./main.js");
  Promise.all([main(), script("avatar.js")])
    .then(([module]) => module.start(self.HEADSTART_AVATAR, begun))
    .catch(say);
})();

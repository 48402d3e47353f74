// What other readers make of a file: `node readers.mjs three|babylon|niantic FILE` prints one JSON object of flat arrays.
import fs from 'node:fs';

const [reader, file] = process.argv.slice(2);
const bytes = fs.readFileSync(file);
const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);

async function three() {
  globalThis.self = globalThis;
  const addons = 'three/addons/loaders/';
  let geometry, extras = null;
  if (file.endsWith('.glb')) {
    const { GLTFLoader } = await import(addons + 'GLTFLoader.js');
    const { GLTFGaussianSplatLoaderExtension } = await import(addons + 'GLTFGaussianSplatLoaderExtension.js');
    const loader = new GLTFLoader();
    loader.register((parser) => new GLTFGaussianSplatLoaderExtension(parser));
    const gltf = await new Promise((done, failed) => loader.parse(buffer, '', done, failed));
    gltf.scene.traverse((object) => { if (object.isGaussianSplat) geometry = object.splatGeometry; });
    extras = gltf.asset.extras;
  } else {
    const name = file.endsWith('.spz') ? 'SPZLoader' : 'GaussianSplatPLYLoader';
    const module = await import(`${addons}${name}.js`);
    geometry = new module[name]().parse(buffer);
  }
  const of = (name) => Array.from(geometry.getAttribute(name).array);
  return { centers: of('position'), covariances: of('covariance'), colors: of('color'), extras };
}

async function babylon() {
  globalThis.Worker = class { postMessage() {} terminate() {} };
  console.log = () => {};
  const { NullEngine } = await import('@babylonjs/core/Engines/nullEngine.js');
  const { Scene } = await import('@babylonjs/core/scene.js');
  const { LoadAssetContainerAsync } = await import('@babylonjs/core/Loading/sceneLoader.js');
  await import('@babylonjs/loaders/glTF/2.0/glTFLoader.js');
  await import('@babylonjs/loaders/glTF/2.0/Extensions/KHR_gaussian_splatting.js');
  const scene = new Scene(new NullEngine());
  scene.useRightHandedSystem = true;
  const url = 'data:;base64,' + bytes.toString('base64');
  const container = await LoadAssetContainerAsync(url, scene, { pluginExtension: '.glb' });
  const mesh = container.meshes.find((m) => m.getClassName() === 'GaussianSplattingMesh');
  return { count: mesh.splatCount, positions: Array.from(mesh._splatPositions) };
}

// The format's own library (nianticlabs/spz), compiled to WebAssembly; scales in metres, opacities and colours in [0, 1].
async function niantic() {
  globalThis.window = globalThis;
  process.type = 'renderer';  // its bundle is for browsers, and looks for Node's modules where it takes this for Node
  const { loadSpz } = await import('@spz-loader/core');
  const cloud = await loadSpz(new Uint8Array(buffer), { colorScaleFactor: 0.28209479177387814 });
  const of = (name) => Array.from(cloud[name]);
  const { numPoints, shDegree, antialiased } = cloud;
  return { numPoints, shDegree, antialiased, ...Object.fromEntries(
    ['positions', 'scales', 'rotations', 'alphas', 'colors'].map((name) => [name, of(name)])) };
}

const found = await ({ three, babylon, niantic })[reader]();
await new Promise((done) => process.stdout.write(JSON.stringify(found), done));
process.exit(0);

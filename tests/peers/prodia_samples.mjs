// The documents' samples for the official `prodia` package, by name:
//   node prodia_samples.mjs NAME
// PRODIA_TOKEN and PRODIA_BASE_URL say where; pictures lie in the working folder.
// Prints one line of JSON: what the job gave, or the error.
import { createHash } from "node:crypto";
import fs from "node:fs/promises";
import { createProdia } from "prodia/v2";

const prodia = createProdia({
  token: process.env.PRODIA_TOKEN,
  baseUrl: `${process.env.PRODIA_BASE_URL}/v2`,
});

const combine = {
  type: "inference.nano-banana.img2img.v2",
  config: {
    prompt: "put the product into the scene",
    images: ["product.jpg", "scene.jpg"],
  },
};

async function file(name) {
  return new File([await fs.readFile(name)], name, { type: "image/jpeg" });
}

const samples = {
  // Jobs of any types, from a file: each is run as the readme runs one.
  families: async () => {
    const told = {};
    for (const { job, inputs } of JSON.parse(await fs.readFile("families.json"))) {
      const result = await prodia.job(job, {
        inputs: await Promise.all(inputs.map((name) => fs.readFile(name))),
      });
      const bytes = Buffer.from(await result.arrayBuffer());
      told[job.type] = {
        state: result.job.state.current,
        beginning: bytes.subarray(0, 8).toString("latin1"),
      };
    }
    return { families: told };
  },
  readme: () =>
    prodia.job({
      type: "inference.flux.dev.txt2img.v1",
      config: { prompt: "puppies in a cloud, 4k", steps: 25 },
    }),
  accept: () =>
    prodia.job(
      {
        type: "inference.flux-fast.schnell.txt2img.v2",
        config: { prompt: "a ripe strawberry", seed: 42 },
      },
      { accept: "image/jpeg;quality=95;subsampling=444" },
    ),
  files: async () =>
    prodia.job(combine, {
      inputs: [await file("product.jpg"), await file("scene.jpg")],
    }),
  buffers: async () =>
    prodia.job(
      { type: "inference.faceswap.v1" },
      {
        inputs: [await fs.readFile("product.jpg"), await fs.readFile("scene.jpg")],
      },
    ),
  namedBuffers: async () =>
    prodia.job(combine, {
      inputs: [await fs.readFile("product.jpg"), await fs.readFile("scene.jpg")],
    }),
  badConfig: () =>
    prodia.job({
      type: "inference.flux.schnell.txt2img.v1",
      config: { prompt: "puppies in a cloud, 4k", steps: 1000 },
    }),
};

try {
  const result = await samples[process.argv[2]]();
  if (result.families) {
    console.log(JSON.stringify(result.families));
  } else {
    const bytes = await result.uint8Array();
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    console.log(JSON.stringify({ job: result.job, size: bytes.length, sha256 }));
  }
} catch (error) {
  console.log(JSON.stringify({ error: error.constructor.name, message: error.message }));
}

// The documents' samples for `@ai-sdk/prodia`, by name:
//   node ai_sdk_samples.mjs NAME
// PRODIA_TOKEN and PRODIA_BASE_URL say where; pictures lie in the working folder.
// Prints one line of JSON: what came, or the error.
import fs from "node:fs/promises";
import { createProdia } from "@ai-sdk/prodia";
import { experimental_generateVideo, generateImage, generateText } from "ai";

globalThis.AI_SDK_LOG_WARNINGS = false;
const prodia = createProdia({ baseURL: `${process.env.PRODIA_BASE_URL}/v2` });
const SCHNELL = "inference.flux-fast.schnell.txt2img.v2";

function told(file, metadata) {
  const bytes = file.uint8Array;
  // An MP4 file says "ftyp" here.
  const head = Buffer.from(bytes.subarray(4, 8)).toString("latin1");
  return { type: file.mediaType, size: bytes.length, head, metadata };
}

async function image(type) {
  const { image, providerMetadata } = await generateImage({
    model: prodia.image(type),
    prompt: "a cat with a hat",
    size: "512x512",
    seed: 42,
  });
  return told(image, providerMetadata.prodia.images[0]);
}

async function families() {
  const told = {};
  for (const type of [
    SCHNELL,
    "inference.flux-2.pro.txt2img.v1",
    "inference.recraft.v4.txt2img.v1",
    "inference.seedream-4-5.txt2img.v1",
    "inference.gemini-3-1-flash.txt2img.v1",
    "inference.nano-banana.txt2img.v2",
  ]) {
    const { image } = await generateImage({ model: prodia.image(type), prompt: "a cat" });
    told[type] = image.mediaType;
  }
  for (const type of [
    "inference.wan2-7.txt2vid.v1",
    "inference.veo.txt2vid.v1",
    "inference.sora-2.pro.txt2vid.v1",
    "inference.kling.txt2vid.v1",
    "inference.minimax.h3.fast.txt2vid.v1",
  ]) {
    const { videos } = await experimental_generateVideo({
      model: prodia.video(type),
      prompt: "a wave rolls onto the beach",
    });
    told[type] = videos[0].mediaType;
  }
  return told;
}

const samples = {
  families,
  image: () => image(SCHNELL),
  badType: () => image("inference.no-such-type.v1"),
  edit: async () => {
    const { files, text, providerMetadata } = await generateText({
      model: prodia.languageModel("inference.nano-banana.img2img.v2"),
      messages: [
        {
          role: "user",
          content: [
            { type: "text", text: "make it snow" },
            { type: "image", image: await fs.readFile("scene.jpg"), mediaType: "image/jpeg" },
          ],
        },
      ],
    });
    return { ...told(files[0], providerMetadata?.prodia), text };
  },
  video: async () => {
    const { videos } = await experimental_generateVideo({
      model: prodia.video("inference.wan2-2.lightning.txt2vid.v0"),
      prompt: "a wave rolls onto the beach",
    });
    return told(videos[0]);
  },
};

try {
  console.log(JSON.stringify(await samples[process.argv[2]]()));
} catch (error) {
  const { name, message, statusCode, responseBody } = error;
  console.log(JSON.stringify({ error: name, message, status: statusCode, body: responseBody }));
}

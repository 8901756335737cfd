import { readFileSync } from "node:fs";
import { defineConfig } from "vite";

// Three files and an icon, under names that stay: they are committed and embedded into the gateway,
// which sends them with an ETag. What is bundled brings its licences along.
const notices = readFileSync(new URL("NOTICES.txt", import.meta.url), "utf8").replaceAll("*/", "* /");

export default defineConfig({
  base: "/",
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rollupOptions: {
      output: {
        entryFileNames: "console.js",
        assetFileNames: "console.[ext]",
        codeSplitting: false,
        postBanner: `/*\n${notices}*/`,
      },
    },
  },
  server: {
    // `npx vite` beside a gateway: CHIMERA_GATEWAY=http://127.0.0.1:8080
    proxy: Object.fromEntries(
      ["/v1", "/chimera"].map((path) => [
        path,
        { target: process.env.CHIMERA_GATEWAY ?? "http://127.0.0.1:8080", changeOrigin: true },
      ]),
    ),
  },
});

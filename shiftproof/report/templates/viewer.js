"use strict";
// The volume viewer: everything that it needs is in the page, and is unpacked when a reader asks for a case.
(() => {
  const dialog = document.getElementById("viewer");
  const part = (name) => dialog.querySelector(`[data-part="${name}"]`);
  const buttons = [...document.querySelectorAll("button[data-volume]")];
  const ERRORS = { colours: ["#000000", "#ff5a36", "#f7e34d", "#4f7bff"], names: ["", "missed", "spurious", "other structure"] };
  const AXES = { sagittal: 0, coronal: 1, axial: 2 };
  const TYPES = { axial: 0, coronal: 1, sagittal: 2, all: 3, solid: 4 };

  const lacking = lacks();
  if (lacking) {
    const line = document.getElementById("no-viewer");
    line.textContent = lacking;
    line.hidden = false;
    return;
  }
  for (const button of buttons) {
    button.hidden = false;
    button.addEventListener("click", () => open(button));
  }
  document.getElementById("viewer-lead").hidden = false;

  function lacks() {
    if (typeof DecompressionStream !== "function" || typeof HTMLDialogElement !== "function")
      return "This browser is too old for the volume viewer; the pictures below are complete without it.";
    if (!document.createElement("canvas").getContext("webgl2"))
      return "This browser offers no WebGL2, which the volume viewer needs; the pictures below are complete without it.";
    return "";
  }

  // State: one viewer for the page, one case in it.
  let library = null;
  let nv = null;
  let scene = null;
  let asked = 0;

  async function open(button) {
    const turn = ++asked;
    const about = JSON.parse(document.getElementById(`volume-${button.dataset.volume}`).textContent);
    part("title").textContent = `${about.title}, ${about.domain}`;
    part("note").textContent = `Shown: ${about.note}.`;
    say("Unpacking the volumes\u2026");
    controls(about);
    dialog.showModal();
    part("canvas").focus();
    try {
      library ??= await unpackedLibrary();
      await show(about, () => turn === asked && dialog.open);
    } catch (error) {
      say(`This volume cannot be shown (${error.message}); its picture on the page is complete without it.`);
    }
  }

  function controls(about) {
    const rows = part("row");
    rows.replaceChildren(...about.predictions.map((p, i) => new Option(`${p.row}: ${p.score}`, i)));
    rows.closest("label").hidden = about.predictions.length < 1;
    for (const name of ["label", "prediction", "errors"]) {
      part(name).checked = name !== "errors";
      part(name).closest("label").hidden = !about.label;
    }
    part("tint").closest("label").hidden = !about.label;
    part("plane").value = dialogIsWide() ? "all" : about.plane;
    const structures = about.classes.map((name, i) => [name, about.colours[i]]);
    legend(structures.filter((_, i) => i && i !== about.unknown), "structures");
    legend(ERRORS.names.slice(1).map((name, i) => [name, ERRORS.colours[i + 1]]), "kinds");
    part("kinds").hidden = true;
  }

  const dialogIsWide = () => matchMedia("(min-width: 48rem)").matches;

  function legend(entries, name) {
    part(name).replaceChildren(
      ...entries.map(([text, colour]) => {
        const item = document.createElement("li");
        const patch = document.createElement("i");
        patch.style.background = colour;
        item.append(patch, text);
        return item;
      })
    );
  }

  async function unpacked(text) {
    const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }

  // The page's policy lets this one source run, by its hash.
  async function unpackedLibrary() {
    const source = new TextDecoder().decode(await unpacked(document.getElementById("packed-viewer").textContent));
    const element = document.createElement("script");
    element.textContent = source;
    document.head.append(element);
    if (!globalThis.niivue) throw new Error("the viewer did not start");
    return globalThis.niivue;
  }

  const table = (colours, names, unseen = 0) => {
    const channel = (from) => colours.map((c) => parseInt(c.slice(from, from + 2), 16));
    return { R: channel(1), G: channel(3), B: channel(5), A: colours.map((_, i) => (i && i !== unseen ? 255 : 0)), I: colours.map((_, i) => i), labels: names };
  };

  async function volume(text, name, opacity, extra = {}) {
    const { NVImage } = library;
    const found = await NVImage.loadFromBase64({ base64: text, name: `${name}.nii.gz`, opacity, ...extra });
    if (extra.classes) found.setColormapLabel(table(extra.classes.colours, extra.classes.names, extra.classes.unseen));
    return found;
  }

  async function show(about, wanted) {
    if (!nv) {
      nv = new library.Niivue({
        logLevel: "silent", dragAndDropEnabled: false, isRadiologicalConvention: true, backColor: [0, 0, 0, 1],
        crosshairColor: [1, 1, 1, 0.6], crosshairWidth: 0.25, crosshairWidthUnit: "percent", crosshairGap: 6, fontColor: [1, 1, 1, 1], loadingText: "", multiplanarShowRender: 1,
        show3Dcrosshair: true, multiplanarPadPixels: 4, isResizeCanvas: true, tileMargin: 4,
      });
      // A closed dialog has no size, and there is nothing to draw in it.
      const resize = nv.resizeListener.bind(nv);
      nv.resizeListener = () => part("canvas").clientWidth && resize();
      await nv.attachToCanvas(part("canvas"), false);
      nv.onLocationChange = located;
    }
    clear();
    const [low, high] = about.window;
    const image = await volume(about.image, "image", 1, { cal_min: low, cal_max: high, colormap: "gray" });
    const classes = { colours: about.colours, names: about.classes, unseen: about.unknown };
    const label = about.label && (await volume(about.label, "label", 1, { classes }));
    const predictions = [];
    for (const p of about.predictions) predictions.push(await volume(p.volume, "prediction", 1, { classes }));
    if (!wanted()) return;
    nv.resizeListener();
    scene = { about, image, label, predictions, errors: null };
    nv.addVolume(image);
    if (label) {
      nv.addVolume(label);
      scene.errors = label.clone();
      scene.errors.setColormapLabel(table(ERRORS.colours, ERRORS.names));
      nv.addVolume(scene.errors);
    }
    nv.setSliceType(TYPES[part("plane").value]);
    nv.scene.crosshairPos = nv.mm2frac(about.start);
    choose();
    slider();
    nv.createOnLocationChange();
  }

  function clear() {
    nv.closeDrawing();
    while (nv.volumes.length) nv.removeVolumeByIndex(nv.volumes.length - 1);
    scene = null;
  }

  // The row whose prediction is shown: as a line, which NiiVue draws around a "drawing", and as errors.
  function choose() {
    const prediction = scene?.predictions[Number(part("row").value)];
    if (!prediction || !scene.label) return overlays();
    nv.setDrawColormap(table(scene.about.colours, scene.about.classes));
    nv.loadDrawing(prediction);
    nv.drawRimOpacity = 1;
    scene.errors.img = scene.label.img.map((truth, i) => {
      const answer = prediction.img[i];
      return truth === answer || truth === scene.about.unknown ? 0 : !answer ? 1 : !truth ? 2 : 3;
    });
    overlays();
  }

  function overlays() {
    if (!scene) return;
    if (scene.label) {
      const tint = Number(part("tint").value) / 100;
      scene.label.opacity = part("label").checked ? tint : 0;
      scene.errors.opacity = part("errors").checked ? 0.65 : 0;
      part("kinds").hidden = !part("errors").checked;
      // Not 0, which would hide the line as well.
      nv.drawOpacity = part("prediction").checked ? 0.004 : 0;
    }
    nv.updateGLVolume();
    located();
  }

  const plane = () => (part("plane").value in AXES ? part("plane").value : (scene?.about.plane ?? "axial"));
  const slices = () => scene.image.dimsRAS[AXES[plane()] + 1];
  const here = () => Math.round(nv.frac2vox(nv.scene.crosshairPos)[AXES[plane()]]);

  function slider() {
    part("slice").max = slices();
    part("slice").setAttribute("aria-label", `${plane()} slice`);
    part("slice-name").textContent = plane();
  }

  function step(by) {
    if (!scene) return;
    const to = Math.min(Math.max(here() + by, 0), slices() - 1) - here();
    const move = [0, 0, 0];
    move[AXES[plane()]] = to;
    nv.moveCrosshairInVox(...move);
  }

  function located() {
    if (!scene) return;
    part("slice").value = here() + 1;
    const at = nv.frac2mm(nv.scene.crosshairPos);
    const value = (v) => v.getValue(...v.mm2vox(at), 0);
    const digits = Math.abs(scene.about.window[1] - scene.about.window[0]) > 20 ? 0 : 2;
    const named = (v) => scene.about.classes[Math.round(value(v))] ?? "";
    const words = [`${plane()} slice ${here() + 1} of ${slices()}`, `grey value ${value(scene.image).toFixed(digits)}`];
    if (scene.label) words.push(`label ${named(scene.label)}`);
    const prediction = scene.predictions[Number(part("row").value)];
    if (prediction) words.push(`prediction ${named(prediction)}`);
    say(words.join(" \u00b7 "));
  }

  function say(text) {
    part("status").textContent = text;
  }

  part("row").addEventListener("change", choose);
  for (const name of ["label", "prediction", "errors"]) part(name).addEventListener("change", overlays);
  part("tint").addEventListener("input", overlays);
  part("slice").addEventListener("input", () => scene && step(Number(part("slice").value) - 1 - here()));
  part("plane").addEventListener("change", replane);
  part("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    if (dialog.open) return; // the event comes late: another case has been asked for since
    asked += 1;
    if (nv) clear();
  });

  function replane() {
    if (!scene) return;
    nv.setSliceType(TYPES[part("plane").value]);
    slider();
    located();
  }

  const STEPS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -1e6, End: 1e6 };
  const TOGGLES = { l: "label", p: "prediction", e: "errors" };
  const PLANES = { 1: "axial", 2: "coronal", 3: "sagittal", 4: "all", 5: "solid" };

  // Keys of the canvas; NiiVue's own, which differ, do not reach it.
  dialog.addEventListener("keydown", (event) => {
    if (event.target !== part("canvas") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key !== "Tab" && event.key !== "Escape") event.stopPropagation();
    const key = event.key.toLowerCase();
    if (event.key in STEPS) {
      if (part("plane").value === "solid" && event.key.startsWith("Arrow")) turn(event.key);
      else step(STEPS[event.key]);
    } else if (key in TOGGLES) {
      part(TOGGLES[key]).click();
    } else if (key in PLANES) {
      part("plane").value = PLANES[key];
      replane();
    } else {
      return;
    }
    event.preventDefault();
  }, true);
  dialog.addEventListener("keyup", (event) => {
    if (event.target === part("canvas")) event.stopPropagation();
  }, true);

  function turn(key) {
    const [across, up] = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, 10], ArrowDown: [0, -10] }[key];
    nv?.setRenderAzimuthElevation(nv.scene.renderAzimuth + across, nv.scene.renderElevation + up);
  }
})();

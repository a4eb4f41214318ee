// NiiVue shows the image and a label map; this is all of it that the page uses.
// Label maps go to the graphics card by the box that changed: NiiVue's own pen copies the whole volume at every move.

const DRAW_UNIT = 33991; // WebGL's TEXTURE7, in which NiiVue's shaders look for the label map
const GRADIENT_UNITS = [33990, 33992]; // TEXTURE6, TEXTURE8
const RENDER = 4;
const PLANE_OF_SLICE = [2, 1, 0]; // NiiVue counts axial, coronal, sagittal
const [CAL_MAX, CAL_MIN] = [124, 128]; // bytes of a NIfTI-1 header
const CROSS_GAP = 5; // voxels around the cross that it leaves free
const MOST_ZOOM = 16;
const MOST_FOR_3D = 2 ** 24; // voxels up to which the planes come with 3D from the start

export const LAYOUTS = [
  { key: "planes3d", name: "Planes + 3D", slices: 3, render: 1, plane: null },
  { key: "planes", name: "Planes", slices: 3, render: 0, plane: null },
  { key: "axial", name: "Axial", slices: 0, render: 0, plane: 2 },
  { key: "coronal", name: "Coronal", slices: 1, render: 0, plane: 1 },
  { key: "sagittal", name: "Sagittal", slices: 2, render: 0, plane: 0 },
  { key: "3d", name: "3D", slices: RENDER, render: 1, plane: null },
];

const FULL_QUAD = `#version 300 es
in vec3 vPos;
void main() {
  gl_Position = vec4(2.0 * vPos.xy - 1.0, 0.0, 1.0);
}`;

// Grey values of one slice by the window. Alpha, for 3D, is that of NiiVue's grey colour map. kind: of the texture, "i" for
// whole numbers. NiiVue finds a uniform only where it has a line of its own.
const greyValues = (kind) => `#version 300 es
precision highp float;
uniform highp ${kind}sampler3D intensityVol;
uniform float coordZ;
uniform float scl_slope;
uniform float scl_inter;
uniform float cal_min;
uniform float cal_max;
out vec4 FragColor;
void main() {
  int slice = int(coordZ * float(textureSize(intensityVol, 0).z));
  float value = scl_slope * float(texelFetch(intensityVol, ivec3(gl_FragCoord.xy, slice), 0).r) + scl_inter;
  float grey = clamp((value - cal_min) / max(0.00001, cal_max - cal_min), 0.0, 1.0);
  FragColor = vec4(grey, grey, grey, grey * 128.0 / 255.0);
}`;

// NiiVue computes more for every voxel of an image than is used here, and without a graphics card that is most of the time in
// which a large CT opens. Gradients for the lighting of its 3D view: textures of one column and shaders that draw nothing take
// their place. Orientation, colour maps, layers: images come along the patient's axes, one at a time, and are grey.
class Renderer extends window.niivue.Niivue {
  async attachToCanvas(...parameters) {
    await super.attachToCanvas(...parameters);
    const drawNothing = { uniforms: {}, use: (gl) => gl.enable(gl.RASTERIZER_DISCARD) };
    this.blurShader = this.sobelFirstOrderShader = drawNothing;
    const Shader = this.orientShaderI.constructor;
    this.orientShaderI = new Shader(this.gl, FULL_QUAD, greyValues("i"));
    this.orientShaderF = new Shader(this.gl, FULL_QUAD, greyValues(""));
    return this;
  }

  rgbaTex(texture, unit, dims, isInit) {
    return super.rgbaTex(texture, unit, GRADIENT_UNITS.includes(unit) ? [3, 1, 1, dims[3]] : dims, isInit);
  }

  refreshLayers(...parameters) {
    super.refreshLayers(...parameters);
    this.gl.disable(this.gl.RASTERIZER_DISCARD);
  }
}

export class Viewer {
  constructor(canvas, onMove) {
    this.canvas = canvas;
    this.nv = new Renderer({
      backColor: [0, 0, 0, 1], crosshairColor: [0.95, 0.75, 0.2, 0.8], crosshairWidth: 0.3, crosshairWidthUnit: "percent",
      isRadiologicalConvention: true, dragAndDropEnabled: false, show3Dcrosshair: true, multiplanarLayout: 2, isNearestInterpolation: false,
      viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", logLevel: "error", loadingText: "", isForceMouseClickToVoxelCenters: true,
      multiplanarEqualSize: false, tileMargin: 2,
    });
    this.nv.onLocationChange = onMove;
    this.shape = null;
    this.frame = null;
  }

  async start() {
    await this.nv.attachToCanvas(this.canvas, false);
    this.nv.setInterpolation(false);
  }

  setColours(colours) {
    const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
    for (const [value, colour, name] of colours) {
      while (table.I.length < value) this.addColour(table, table.I.length, "#000000", "");
      this.addColour(table, value, colour, name);
    }
    this.nv.setDrawColormap(table);
  }

  addColour(table, value, colour, name) {
    const part = (at) => parseInt(colour.slice(at, at + 2), 16);
    table.R.push(part(1));
    table.G.push(part(3));
    table.B.push(part(5));
    table.A.push(255);
    table.I.push(value);
    table.labels.push(name);
  }

  // file: a NIfTI file whose axes are right, anterior, superior. window: [low, high], or null for that of the file.
  async showImage(file, shape, window = null) {
    if (window) {
      const header = new DataView(file);
      for (const [at, value] of [[CAL_MIN, window[0]], [CAL_MAX, window[1]]]) header.setFloat32(at, value, true);
    }
    while (this.nv.volumes.length) this.nv.removeVolumeByIndex(0);
    this.nv.drawBitmap = null;
    await this.nv.loadFromArrayBuffer(file, "image.nii");
    this.shape = shape;
    this.nv.opts.crosshairGap = CROSS_GAP * Math.max(...this.nv.volumes[0].pixDimsRAS.slice(1, 4));
    this.nv.drawTexture = this.nv.r8Tex(this.nv.drawTexture, DRAW_UNIT, [3, ...shape]); // filled by the first label map
  }

  get hasImage() { return this.nv.volumes.length > 0; }

  // All of a label map; it stays the viewer's until the next one.
  showLabels(labels) {
    this.nv.drawBitmap = labels;
    this.upload({ low: [0, 0, 0], high: this.shape.map((length) => length - 1) }, labels);
    this.draw();
  }

  // The part of the label map that was drawn into.
  showBox(box) {
    const [nx, ny] = this.shape;
    const size = box.high.map((high, axis) => high - box.low[axis] + 1);
    const part = new Uint8Array(size[0] * size[1] * size[2]);
    for (let z = 0, at = 0; z < size[2]; z++) {
      for (let y = 0; y < size[1]; y++, at += size[0]) {
        const start = box.low[0] + nx * (box.low[1] + y + ny * (box.low[2] + z));
        part.set(this.nv.drawBitmap.subarray(start, start + size[0]), at);
      }
    }
    this.upload(box, part);
    this.draw();
  }

  upload({ low, high }, part) {
    const { gl } = this.nv;
    gl.activeTexture(DRAW_UNIT);
    gl.bindTexture(gl.TEXTURE_3D, this.nv.drawTexture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texSubImage3D(gl.TEXTURE_3D, 0, ...low, ...high.map((end, axis) => end - low[axis] + 1), gl.RED, gl.UNSIGNED_BYTE, part);
  }

  // Once a frame, however often it is asked for: held keys come faster than a large volume is drawn.
  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.nv.drawScene();
    });
  }

  setLayout(key) {
    const layout = LAYOUTS.find((one) => one.key === key);
    this.nv.opts.multiplanarShowRender = layout.render;
    this.nv.setSliceType(layout.slices);
  }

  // A single slice.
  static isFlat(shape) { return shape[2] === 1; }

  static firstLayout(shape, isNarrow) {
    if (isNarrow || Viewer.isFlat(shape)) return "axial";
    return shape[0] * shape[1] * shape[2] <= MOST_FOR_3D ? "planes3d" : "planes";
  }

  setOpacity(opacity, outline) {
    this.nv.drawRimOpacity = outline ? Math.max(opacity, 0.05) : -1;
    this.nv.setDrawOpacity(outline ? 0.0001 : opacity);
  }

  get window() {
    const [volume] = this.nv.volumes;
    return { low: volume.cal_min, high: volume.cal_max };
  }

  setWindow(low, high) {
    const [volume] = this.nv.volumes;
    volume.cal_min = low;
    volume.cal_max = high;
    this.nv.updateGLVolume();
  }

  // The voxel at the cross.
  get cross() {
    return [...this.nv.frac2vox(this.nv.scene.crosshairPos)].map((at, axis) => Math.min(Math.max(Math.round(at), 0), this.shape[axis] - 1));
  }

  moveTo(voxel) {
    this.nv.scene.crosshairPos = this.nv.vox2frac(voxel);
    this.nv.createOnLocationChange();
    this.draw();
  }

  // The voxel and the plane below the pointer; null outside of the planes.
  at(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    const scale = this.nv.uiData.dpr ?? window.devicePixelRatio;
    const [x, y] = [(event.clientX - left) * scale, (event.clientY - top) * scale];
    const tile = this.nv.tileIndex(x, y);
    const slice = this.nv.screenSlices[tile];
    if (tile < 0 || !slice || slice.axCorSag > 2) return null;
    const place = this.nv.screenXY2TextureFrac(x, y, tile, true);
    if (place[0] < 0) return null;
    const voxel = [...this.nv.frac2vox(place)].map((one, axis) => Math.min(Math.max(Math.round(one), 0), this.shape[axis] - 1));
    return { voxel, plane: PLANE_OF_SLICE[slice.axCorSag] };
  }

  // Around the cross.
  zoom(factor) {
    const [x, y, z, zoom] = this.nv.scene.pan2Dxyzmm;
    const next = Math.min(Math.max(zoom * factor, 1), MOST_ZOOM);
    const place = this.nv.frac2mm(this.nv.scene.crosshairPos);
    const pan = [x, y, z].map((shift, axis) => shift + (zoom - next) * place[axis]);
    this.nv.setPan2Dxyzmm(next === 1 ? [0, 0, 0, 1] : [...pan, next]);
  }
}

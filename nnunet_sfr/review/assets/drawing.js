// Drawing into a label map, one byte a voxel, x fastest, then y, then z; and going back.
// A plane is the axis across it: 2 axial, 1 coronal, 0 sagittal.

export class Drawing {
  // labels: of one case, changed in place; shape and spacing: [x, y, z], voxels and mm.
  constructor(labels, shape, spacing) {
    this.labels = labels;
    this.shape = shape;
    this.spacing = spacing;
    this.strides = [1, shape[0], shape[0] * shape[1]];
    this.past = [];
    this.future = [];
    this.stroke = null;
  }

  // value: to draw, 0 erases. protect: what may be drawn over is the background alone (of a class: erased, itself).
  begin(value, { protect = false, only = 0 } = {}) {
    this.stroke = { value, protect, only, before: new Map(), box: null };
  }

  // What changed since begin() becomes one step back; returns whether anything did.
  end() {
    const { before } = this.stroke;
    this.stroke = null;
    if (!before.size) return false;
    const indices = Uint32Array.from(before.keys());
    this.past.push({ indices, before: Uint8Array.from(before.values()), after: valuesAt(this.labels, indices) });
    this.future = [];
    return true;
  }

  set(x, y, z) {
    const { value, protect, only, before } = this.stroke;
    if (x < 0 || y < 0 || z < 0 || x >= this.shape[0] || y >= this.shape[1] || z >= this.shape[2]) return;
    const index = x + y * this.strides[1] + z * this.strides[2];
    const old = this.labels[index];
    if (old === value) return;
    if (protect && old !== (value === 0 ? only : 0) && before.get(index) === undefined) return;
    if (!before.has(index)) before.set(index, old);
    this.labels[index] = value;
    this.stroke.box = grown(this.stroke.box, [x, y, z]);
  }

  // The box of voxels that changed since the last call, or null.
  takeBox() {
    const { box } = this.stroke;
    this.stroke.box = null;
    return box;
  }

  // A disc across `plane`; its diameter is in voxels of the finer axis, and it is round in mm.
  disc(centre, plane, diameter) {
    const [u, v] = inPlane(plane);
    const finer = Math.min(this.spacing[u], this.spacing[v]);
    const radius = (diameter / 2) * finer;
    const [reachU, reachV] = [Math.floor(radius / this.spacing[u]), Math.floor(radius / this.spacing[v])];
    for (let i = -reachU; i <= reachU; i++) {
      for (let j = -reachV; j <= reachV; j++) {
        if ((i * this.spacing[u]) ** 2 + (j * this.spacing[v]) ** 2 > radius ** 2) continue;
        const voxel = [...centre];
        voxel[u] += i;
        voxel[v] += j;
        this.set(...voxel);
      }
    }
  }

  // Discs along a line between two voxels of one plane.
  line(from, to, plane, diameter) {
    const steps = Math.max(1, ...from.map((start, axis) => Math.abs(to[axis] - start)));
    for (let step = 0; step <= steps; step++) {
      this.disc(from.map((start, axis) => Math.round(start + ((to[axis] - start) * step) / steps)), plane, diameter);
    }
  }

  // The inside of a closed outline in one plane, its border included.
  polygon(points, plane) {
    const [u, v] = inPlane(plane);
    for (let i = 0; i < points.length; i++) this.line(points[i], points[(i + 1) % points.length], plane, 1);
    const [low, high] = [Math.min(...points.map((p) => p[v])), Math.max(...points.map((p) => p[v]))];
    for (let row = low; row <= high; row++) {
      const crossings = [];
      for (let i = 0; i < points.length; i++) {
        const [a, b] = [points[i], points[(i + 1) % points.length]];
        if (a[v] <= row !== b[v] <= row) crossings.push(a[u] + ((row - a[v]) * (b[u] - a[u])) / (b[v] - a[v]));
      }
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        for (let column = Math.ceil(crossings[i]); column <= crossings[i + 1]; column++) {
          const voxel = [...points[0]];
          voxel[u] = column;
          voxel[v] = row;
          this.set(...voxel);
        }
      }
    }
  }

  // All voxels of one plane that hang together with this one and have its label.
  fill(start, plane) {
    const [u, v] = inPlane(plane);
    const index = (voxel) => voxel[0] + voxel[1] * this.strides[1] + voxel[2] * this.strides[2];
    const old = this.labels[index(start)];
    if (old === this.stroke.value) return;
    const seen = new Set([index(start)]);
    const waiting = [start];
    while (waiting.length) {
      const voxel = waiting.pop();
      this.set(...voxel);
      for (const [axis, by] of [[u, 1], [u, -1], [v, 1], [v, -1]]) {
        const next = [...voxel];
        next[axis] += by;
        if (next[axis] < 0 || next[axis] >= this.shape[axis]) continue;
        const at = index(next);
        if (this.labels[at] !== old || seen.has(at)) continue;
        seen.add(at);
        waiting.push(next);
      }
    }
  }

  // Other labels take the place of all, as one step.
  replace(labels) {
    const step = difference(this.labels, labels);
    if (!step.indices.length) return false;
    this.labels.set(labels);
    this.past.push(step);
    this.future = [];
    return true;
  }

  // What was drawn in an earlier visit becomes the first step: going back from it leads to `labels`.
  cameFrom(labels) {
    const step = difference(labels, this.labels);
    if (step.indices.length) this.past.unshift(step);
  }

  undo() { return this.go(this.past, this.future, "before"); }

  redo() { return this.go(this.future, this.past, "after"); }

  go(from, to, which) {
    const step = from.pop();
    if (!step) return false;
    for (let i = 0; i < step.indices.length; i++) this.labels[step.indices[i]] = step[which][i];
    to.push(step);
    return true;
  }
}

export const inPlane = (plane) => [[1, 2], [0, 2], [0, 1]][plane];

export function same(labels, others) {
  return difference(labels, others, 1).indices.length === 0;
}

// Where two label maps differ; `most` voxels at most.
function difference(before, after, most = Infinity) {
  const found = [];
  // eight voxels at a time: most of a label map is the same
  const words = Math.floor(before.length / 8);
  const [a, b] = [before, after].map((labels) => new BigUint64Array(aligned(labels), 0, words));
  const compare = (start, stop) => {
    for (let index = start; index < stop; index++) if (before[index] !== after[index]) found.push(index);
  };
  for (let word = 0; word < words && found.length < most; word++) if (a[word] !== b[word]) compare(8 * word, 8 * word + 8);
  if (found.length < most) compare(8 * words, before.length);
  const indices = Uint32Array.from(found);
  return { indices, before: valuesAt(before, indices), after: valuesAt(after, indices) };
}

const aligned = (labels) => (labels.byteOffset ? labels.slice().buffer : labels.buffer);

function valuesAt(labels, indices) {
  const values = new Uint8Array(indices.length);
  for (let i = 0; i < indices.length; i++) values[i] = labels[indices[i]];
  return values;
}

function grown(box, voxel) {
  if (!box) return { low: [...voxel], high: [...voxel] };
  for (let axis = 0; axis < 3; axis++) {
    box.low[axis] = Math.min(box.low[axis], voxel[axis]);
    box.high[axis] = Math.max(box.high[axis], voxel[axis]);
  }
  return box;
}

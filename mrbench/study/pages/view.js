// Images with window, zoom and position. All panels of a trial share one View, so that they always show the same place.

const WHITE = 65535;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Stored pixels: 16 bits, little-endian, [H, W] or [H, W, 3]. */
export class Picture {
  constructor(info, buffer) {
    if (buffer.byteLength !== 2 * info.height * info.width * info.channels) throw new Error("the image is not complete");
    this.info = info;
    this.values = new Uint16Array(buffer);
    this.canvas = document.createElement("canvas");
    this.canvas.width = info.width;
    this.canvas.height = info.height;
    this.window = "";
  }

  /** The pixels as the window shows them. */
  shown(low, high) {
    const key = `${low} ${high}`;
    if (key !== this.window) {
      this.window = key;
      const context = this.canvas.getContext("2d");
      const image = context.createImageData(this.info.width, this.info.height);
      const colour = this.info.channels === 3;
      const [start, gain] = [low * WHITE, 255 / Math.max((high - low) * WHITE, 1)];
      const out = image.data; // clamps to 0..255 and rounds
      for (let i = 0, j = 0; j < out.length; j += 4) {
        out[j] = (this.values[i] - start) * gain;
        out[j + 1] = colour ? (this.values[i + 1] - start) * gain : out[j];
        out[j + 2] = colour ? (this.values[i + 2] - start) * gain : out[j];
        out[j + 3] = 255;
        i += colour ? 3 : 1;
      }
      context.putImageData(image, 0, 0);
    }
    return this.canvas;
  }
}

/** Window (low to high, of 0..1), zoom (1: the whole image) and the image point in the middle (fractions). */
export class View {
  constructor(changed) {
    this.changed = changed;
    [this.smooth, this.low, this.high, this.zoom, this.x, this.y] = [true, 0, 1, 1, 0.5, 0.5];
  }

  reset(info) {
    [this.low, this.high, this.zoom, this.x, this.y] = [info.low, info.high, 1, 0.5, 0.5];
    this.first = info;
    this.changed();
  }

  scale(factor, x = this.x, y = this.y) {
    const zoom = clamp(this.zoom * factor, 1, 24);
    const kept = this.zoom / zoom; // the point (x, y) stays where it is on screen
    this.x = x + (this.x - x) * kept;
    this.y = y + (this.y - y) * kept;
    this.zoom = zoom;
    this.move(0, 0);
  }

  move(dx, dy) {
    const room = 0.5 / this.zoom;
    this.x = clamp(this.x + dx, room, 1 - room);
    this.y = clamp(this.y + dy, room, 1 - room);
    this.changed();
  }

  window(width, level) {
    const wide = clamp((this.high - this.low) * width, 0.01, 2);
    const middle = clamp((this.high + this.low) / 2 + level, 0, 1);
    [this.low, this.high] = [middle - wide / 2, middle + wide / 2];
    this.changed();
  }

  toggle() {
    this.smooth = !this.smooth;
    this.changed();
  }

  get text() {
    const [width, level] = [this.high - this.low, (this.high + this.low) / 2];
    return `window ${width.toFixed(2)}, level ${level.toFixed(2)}, zoom ${this.zoom.toFixed(1)}`;
  }
}

/** One canvas that shows a picture through a view, and changes the view by mouse. */
export class Screen {
  constructor(canvas, view) {
    [this.canvas, this.view, this.picture] = [canvas, view, null];
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => this.grab(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { this.held = null; });
  }

  /** Screen pixels (CSS) per image pixel. */
  get unit() {
    const { width, height } = this.picture.info;
    return Math.min(this.canvas.clientWidth / width, this.canvas.clientHeight / height) * this.view.zoom;
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const [wide, high] = [Math.round(this.canvas.clientWidth * ratio), Math.round(this.canvas.clientHeight * ratio)];
    if (this.canvas.width !== wide || this.canvas.height !== high) [this.canvas.width, this.canvas.height] = [wide, high];
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, wide, high);
    if (!this.picture || !wide || !high) return;
    const { width, height } = this.picture.info;
    const unit = this.unit * ratio;
    context.imageSmoothingEnabled = this.view.smooth;
    context.imageSmoothingQuality = "high";
    context.setTransform(unit, 0, 0, unit, wide / 2 - this.view.x * width * unit, high / 2 - this.view.y * height * unit);
    context.drawImage(this.picture.shown(this.view.low, this.view.high), 0, 0);
  }

  wheel(event) {
    event.preventDefault();
    if (!this.picture) return;
    const box = this.canvas.getBoundingClientRect();
    const { width, height } = this.picture.info;
    const x = this.view.x + (event.clientX - box.left - box.width / 2) / (this.unit * width);
    const y = this.view.y + (event.clientY - box.top - box.height / 2) / (this.unit * height);
    this.view.scale(Math.exp(-clamp(event.deltaY, -200, 200) / 400), clamp(x, 0, 1), clamp(y, 0, 1));
  }

  grab(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.held = { x: event.clientX, y: event.clientY, window: event.shiftKey || event.button === 2 };
  }

  drag(event) {
    if (!this.held || !this.picture) return;
    const [dx, dy] = [event.clientX - this.held.x, event.clientY - this.held.y];
    [this.held.x, this.held.y] = [event.clientX, event.clientY];
    const { width, height } = this.picture.info;
    if (this.held.window) this.view.window(Math.exp(dx / 250), dy / 500);
    else this.view.move(-dx / (this.unit * width), -dy / (this.unit * height));
  }
}

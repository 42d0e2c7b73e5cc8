/** Draws how loud the microphone is: the last few seconds as bars, the newest at the right. */

/** A bar as often as this: fine enough to show syllables, cheap enough to run for hours. */
const BAR_INTERVAL_MS = 60;
const BAR_WIDTH_PX = 3;
const BAR_GAP_PX = 3;
/** Quiet speech is near −45 dBFS; what is below is shown as nothing. */
const FLOOR_DB = -55;
/** The noise of any live microphone is above; a muted or dead one is below. */
const SILENCE_DB = -80;

/** Runs while a track is attached; costs nothing otherwise. */
export class LevelMeter {
  readonly #canvas: HTMLCanvasElement;
  #bars: number[] = [];
  #context: AudioContext | null = null;
  #timer: ReturnType<typeof setInterval> | undefined;
  #lastSoundMs = 0;

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** Since when the microphone has given nothing at all, in ms. */
  get silentForMs(): number {
    return this.#timer === undefined ? 0 : performance.now() - this.#lastSoundMs;
  }

  attach(track: MediaStreamTrack): void {
    this.detach();
    this.#context = new AudioContext();
    const analyser = new AnalyserNode(this.#context, { fftSize: 2048 });
    this.#context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    this.#lastSoundMs = performance.now();
    this.#timer = setInterval(() => {
      // A context that the browser holds back until a gesture measures nothing: that is no silence.
      if (this.#context?.state !== "running") this.#lastSoundMs = performance.now();
      analyser.getFloatTimeDomainData(samples);
      this.#measured(10 * Math.log10(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length));
    }, BAR_INTERVAL_MS);
  }

  detach(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    void this.#context?.close();
    this.#context = null;
    this.#bars = [];
    this.#canvas.dataset["level"] = "0";
    this.#draw();
  }

  #measured(levelDb: number): void {
    if (levelDb > SILENCE_DB) this.#lastSoundMs = performance.now();
    const level = Math.min(1, Math.max(0, 1 - levelDb / FLOOR_DB));
    this.#bars.push(level);
    this.#canvas.dataset["level"] = level.toFixed(2);
    this.#draw();
  }

  #draw(): void {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const pen = this.#canvas.getContext("2d");
    if (pen === null || width === 0) return;
    const scale = devicePixelRatio;
    if (this.#canvas.width !== Math.round(width * scale)) this.#canvas.width = Math.round(width * scale);
    if (this.#canvas.height !== Math.round(height * scale)) this.#canvas.height = Math.round(height * scale);
    const pitch = BAR_WIDTH_PX + BAR_GAP_PX;
    const count = Math.floor((width + BAR_GAP_PX) / pitch);
    this.#bars = this.#bars.slice(-count);
    const style = getComputedStyle(this.#canvas);
    const [active, idle] = [style.getPropertyValue("--accent"), style.getPropertyValue("--line")];
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    for (let slot = 0; slot < count; slot += 1) {
      const level = this.#bars[this.#bars.length - count + slot] ?? 0;
      const length = Math.max(BAR_WIDTH_PX, level * height);
      pen.fillStyle = level > 0 ? active : idle;
      pen.globalAlpha = level > 0 ? 0.35 + 0.65 * (slot / count) : 1;
      pen.beginPath();
      pen.roundRect(slot * pitch, (height - length) / 2, BAR_WIDTH_PX, length, BAR_WIDTH_PX / 2);
      pen.fill();
    }
  }
}

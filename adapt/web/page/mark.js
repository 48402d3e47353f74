// The mark that is part of the picture: whoever sees the head sees that it is not a person.

const TEXT = "AI · synthetic";

// A canvas with the mark, a texture of the renderer.
export function drawMark() {
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d"), font = "700 40px system-ui, sans-serif";
  pen.font = font;
  const wide = Math.ceil(pen.measureText(TEXT).width) + 64;
  Object.assign(canvas, { width: wide, height: 72 });       // which resets the pen
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  Object.assign(pen, { font, fillStyle: "#ffb020", textBaseline: "middle" });
  pen.fillText(TEXT, 32, canvas.height / 2 + 2);
  return canvas;
}

/** A group of bars under one title. */
export interface BarGroup {
  readonly title: string;
  readonly bars: readonly Bar[];
}

export interface Bar {
  readonly label: string;
  readonly value: number;
  /** The ends of its whisker. */
  readonly lower: number;
  readonly upper: number;
  readonly text: string;
  readonly kind: 'native' | 'ours' | 'peer';
}

const COLOURS: Record<Bar['kind'], string> = { native: '#8a8f98', ours: '#2563a8', peer: '#d0a24c' };
const WIDTH = 900;
const LABEL_WIDTH = 150;
const TEXT_WIDTH = 190;
const ROW = 16;
const TITLE_HEIGHT = 30;
const TOP = 46;

/** Horizontal bars, each group to a scale of its own: only what stands in one group can be compared. */
export function barChart(title: string, groups: readonly BarGroup[]): string {
  let y = TOP;
  const parts: string[] = [];
  for (const group of groups) {
    parts.push(textAt(10, y + 16, group.title, 'font-weight="bold"'));
    y += TITLE_HEIGHT;
    const most = Math.max(...group.bars.map(({ value, upper }) => Math.max(value, upper)), Number.MIN_VALUE);
    for (const bar of group.bars) {
      parts.push(drawBar(bar, y, (WIDTH - LABEL_WIDTH - TEXT_WIDTH) / most));
      y += ROW;
    }
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y + 14}" viewBox="0 0 ${WIDTH} ${y + 14}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${y + 14}" fill="#ffffff"/>`,
    textAt(10, 26, title, 'font-size="16"'),
    ...parts,
    '</svg>\n',
  ].join('\n');
}

function drawBar(bar: Bar, y: number, scale: number): string {
  const along = (value: number) => (LABEL_WIDTH + value * scale).toFixed(1);
  const middle = y + ROW / 2;
  return [
    textAt(LABEL_WIDTH - 6, y + 12, bar.label, 'text-anchor="end"'),
    `<rect x="${LABEL_WIDTH}" y="${y + 2}" width="${Math.max(bar.value * scale, 0.5).toFixed(1)}" height="${ROW - 4}" fill="${COLOURS[bar.kind]}"/>`,
    `<path d="M${along(bar.lower)} ${middle}H${along(bar.upper)}" stroke="#20242b"/>`,
    textAt(WIDTH - TEXT_WIDTH + 8, y + 12, bar.text),
  ].join('\n');
}

function textAt(x: number, y: number, text: string, attributes = ''): string {
  return `<text x="${x}" y="${y}"${attributes && ` ${attributes}`}>${escapeXml(text)}</text>`;
}

function escapeXml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

/** Files on their way into a message: read, made smaller where they are photos, and kept with the draft. */

import type { AttachmentAdapter, CompleteAttachment, CreateAttachment, PendingAttachment } from "@assistant-ui/react";

import { type DraftFile, drafts, newKey } from "../chat/saved";
import type { Part } from "../chat/types";
import { say } from "../words";

const MB = 1024 * 1024;
/** Of all attachments of a message; the server takes 25 MB of JSON. */
const LIMIT = 17 * MB;
const LARGE_PHOTO = 1.5 * MB;
const LONGEST_SIDE = 2048;

/** What assistant-ui asks of an attachment adapter, over the draft's own storage. */
export class Attachments implements AttachmentAdapter {
  accept = "*";
  #files: DraftFile[] = [];

  constructor(
    private readonly where: () => string,
    private readonly complain: (text: string) => void,
  ) {}

  /** The attachments of the stored draft, to be put into the composer. */
  async restore(): Promise<CreateAttachment[]> {
    this.#files = await drafts.files(this.where()).catch(() => []);
    return this.#files.map((file) => ({
      id: file.id,
      name: file.name,
      type: kindOf(file),
      contentType: file.type,
      content: contentOf(file),
    }));
  }

  /** Files of a message that was taken back. */
  take(files: DraftFile[]): Promise<void> {
    return drafts.keepFiles(this.where(), files);
  }

  async add({ file }: { file: File }): Promise<PendingAttachment> {
    const read = await readFile(file).catch(() => {
      this.complain(say("attachUnreadable", { name: file.name }));
      throw new Error(`unreadable: ${file.name}`);
    });
    const size = [...this.#files, read].reduce((sum, each) => sum + each.data.length, 0);
    if (size > LIMIT * (4 / 3)) {
      this.complain(say("attachTooLarge", { name: file.name, limit: LIMIT / MB }));
      throw new Error(`too large: ${file.name}`);
    }
    this.#files = [...this.#files, read];
    await drafts.keepFiles(this.where(), this.#files).catch(() => {});
    return {
      id: read.id,
      type: kindOf(read),
      name: read.name,
      contentType: read.type,
      file,
      content: contentOf(read),
      status: { type: "requires-action", reason: "composer-send" },
    };
  }

  async remove({ id }: { id: string }): Promise<void> {
    this.#files = this.#files.filter((file) => file.id !== id);
    await drafts.keepFiles(this.where(), this.#files).catch(() => {});
  }

  async send(attachment: PendingAttachment): Promise<CompleteAttachment> {
    return { ...attachment, content: attachment.content ?? [], status: { type: "complete" } };
  }

  sent(): void {
    this.#files = [];
  }
}

/** The parts of a request that these attachments are. */
export function partsOf(attachments: readonly CompleteAttachment[]): Part[] {
  return attachments.flatMap((attachment) =>
    attachment.content.map((part): Part => {
      if (part.type === "image") return { type: "input_image", image_url: part.image, detail: "auto" };
      const data = part.type === "file" ? part.data : "";
      return { type: "input_file", filename: attachment.name, file_data: data };
    }),
  );
}

/** The attachments of parts, as a draft keeps them. */
export function filesOf(parts: Part[]): DraftFile[] {
  return parts
    .filter((part) => part.image_url ?? part.file_data)
    .map((part) => {
      const data = part.image_url ?? part.file_data ?? "";
      const type = /^data:([^;,]*)/.exec(data)?.[1] ?? "";
      return { id: newKey(), name: part.filename ?? type, type, data };
    });
}

function kindOf(file: DraftFile): "image" | "file" {
  return isImage(file.type) ? "image" : "file";
}

function contentOf(file: DraftFile): CompleteAttachment["content"] {
  if (isImage(file.type)) return [{ type: "image", image: file.data, filename: file.name }];
  return [{ type: "file", data: file.data, mimeType: file.type, filename: file.name }];
}

/** The kinds that models and browsers both can see. */
function isImage(type: string): boolean {
  return /^image\/(png|jpeg|gif|webp)$/.test(type);
}

async function readFile(file: File): Promise<DraftFile> {
  const isPhoto = /^image\/(png|jpeg|webp)$/.test(file.type) && file.size > LARGE_PHOTO;
  const blob = isPhoto ? await smaller(file).catch(() => file) : file;
  const name = file.name || `${say("image", { name: "" })}.png`;
  return { id: newKey(), name, type: blob.type || "application/octet-stream", data: await dataUrl(blob) };
}

async function smaller(file: Blob): Promise<Blob> {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const made = await canvas.convertToBlob({ type: "image/webp", quality: 0.85 });
  return made.size < file.size ? made : file;
}

function dataUrl(blob: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob.type ? blob : new Blob([blob], { type: "application/octet-stream" }));
  });
}
